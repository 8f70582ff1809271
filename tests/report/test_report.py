from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from calm.evaluation.tasks.scoring import PREDICTIONS
from calm.io import read_table, write_table
from calm.report import plots, tables
from calm.report.stage import chosen, report, table_cell
from calm.report.tables import parts
from tests.evaluation.calm_world import FakeCalm, World


class Loads(HTMLParser):
    """Collects everything a browser would fetch, and every opened tag."""

    FETCHING = ("src", "srcset", "data", "poster", "action", "background", "xlink:href", "href")

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in self.FETCHING:
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "style":
                self.loads += re.findall(r"url\(([^)]*)\)", value or "")


def written(world: World, model: FakeCalm | None = None) -> tuple[str, str]:
    report(world.params, world.layout, model=model or world.oracle())
    path = world.layout.report
    return path.read_text(encoding="utf-8"), path.with_suffix(".md").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_anywhere(world: World) -> None:
    html, _ = written(world)
    page = Loads()
    page.feed(html)
    assert page.loads and all(target.startswith(("data:image/jpeg;base64,", "#")) for target in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in html and "url(http" not in html
    assert len(page.ids) == len(set(page.ids))


def test_two_renders_are_byte_equal_and_say_nothing_of_the_machine(world: World) -> None:
    first = written(world)
    assert written(world) == first
    for text in first:
        assert str(world.layout.root) not in text
        assert not re.search(r"20\d\d-\d\d-\d\d", re.sub(r"base64,[\w+/=]*", "", text))


def test_every_task_the_reported_figures_and_the_ablation_are_shown(world: World) -> None:
    html, markdown = written(world)
    for text in (html, markdown):
        for title in (
            "Attribute recognition",
            "Aesthetic scoring",
            "Aesthetic commenting",
            "Personalised",
            "Suggesting",
        ):
            assert title in text
        assert "UNIAA-LLaVA with a regression head" in text and "0.840" in text
        assert "CALM_CORENLP_DIR" in text
        assert "better with it" in text
    assert html.count("<svg") == len(list(world.layout.root.glob("results/*/plots/*.svg"))) + 1
    assert "drawn-eye" in html and "f" * 64 in html


def test_synthetic_labels_are_called_so_at_the_top_and_beside_each_figure(world: World) -> None:
    html, markdown = written(world)
    assert html.index("What is real here, and what is synthetic") < html.index("At a glance")
    assert "simulated raters with hidden preferences" in html and "nobody rated it" in markdown
    assert html.count("synthetic labels") == 3
    assert "synthetic edit · " in html and "as photographed" in html


def test_optional_parts_may_be_missing(world: World) -> None:
    shutil.rmtree(world.layout.root / "results/ablate")
    shutil.rmtree(world.layout.curves)
    (world.layout.lists / "leakage.json").unlink()
    html, markdown = written(world)
    assert "No ablation was run" in html and "No ablation was run" in markdown
    assert "Learning curves" not in html


def test_a_missing_result_says_what_to_run(world: World) -> None:
    shutil.rmtree(world.layout.result("scoring"))
    with pytest.raises(FileNotFoundError, match="calm evaluate scoring"):
        written(world)
    assert not world.layout.report.exists()


def test_text_of_a_model_cannot_break_the_page(world: World) -> None:
    class Hostile(FakeCalm):
        def comment(self, images, batch_size=16, max_new_tokens=40):  # type: ignore[no-untyped-def]
            return ["<script>alert(1)</script> | a\nb"] * len(images)

    html, markdown = written(world, Hostile(world, knows=True))
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "\\| a b" in markdown


def test_examples_pair_a_photograph_with_a_view_of_it(world: World) -> None:
    from calm.evaluation.base import Bench, rated

    bench = Bench("report", world.params, world.layout, world.oracle(), world.params.report)
    rows = chosen(rated(bench, "test"), bench)
    assert len(rows) == world.params.report.examples
    assert rows["synthetic_edits"].isna().tolist() == [True, False] * 3
    names = rows["item_id"].tolist()
    assert all(view.startswith(f"{photograph}#v") for photograph, view in zip(names[::2], names[1::2], strict=True))


def test_an_ablation_is_compared_row_by_row(world: World) -> None:
    found = tables.ablations(world.params, world.layout)["no_selfsupervision"]
    by_label = {row.figure: row for row in found.rows}
    assert found.told.startswith("worse: SRCC, text (") and "MAE" not in found.told
    assert (
        by_label["SRCC, expectation"].with_it == "1.000" and by_label["SRCC, expectation"].verdict == "better with it"
    )
    assert by_label["MAE, regression"].difference.startswith("-")
    assert by_label["MAE, regression"].verdict == "better with it"
    theirs = world.layout.ablation("no_selfsupervision") / "predictions/scoring.parquet"
    shutil.copy(world.layout.result("scoring") / "predictions.parquet", theirs)
    equal = tables.ablations(world.params, world.layout)["no_selfsupervision"]
    assert {row.verdict for row in equal.rows} == {"no difference shown"}


def test_one_table_says_whether_each_part_earns_its_place(world: World) -> None:
    rows = {
        (row.part, row.figure): row
        for row in parts(world.params, world.layout, tables.ablations(world.params, world.layout))
    }
    full = rows["full recipe, not no selfsupervision", "SRCC, regression"]
    assert full.with_it == "1.000" and full.verdict == "better with it"
    same = rows["readout: regression instead of expectation", "SRCC"]
    assert same.difference.startswith("+0.000") and same.verdict == "no difference shown"
    assert any(part.startswith("personal: ridge on residuals instead of generic") for part, _ in rows)
    html, markdown = written(world)
    for text in (html, markdown):
        assert "Does each part earn its place?" in text and "ridge on residuals instead of generic" in text


def test_parts_that_were_not_measured_are_no_rows(world: World) -> None:
    found = parts(world.params, world.layout, {})
    assert not any(row.part.startswith("full recipe") for row in found)
    assert not any("in context" in row.part for row in found)


def test_an_ablation_of_other_photographs_is_refused(world: World) -> None:
    file = world.layout.ablation("no_selfsupervision") / "predictions/scoring.parquet"
    write_table(file, read_table(file, PREDICTIONS).iloc[1:], PREDICTIONS)
    with pytest.raises(tables.ReportError, match="other photographs"):
        tables.ablations(world.params, world.layout)


def test_attention_is_brightest_where_the_level_looked() -> None:
    attention = np.zeros((7, 7), dtype=np.float32)
    attention[0, 6] = 1
    uri = plots.overlay(Image.new("RGB", (200, 100), "grey"), attention)
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L")
    assert shown.size == (200, 100)
    assert shown.getpixel((195, 4)) > shown.getpixel((20, 80)) + 60  # type: ignore[operator]
    flat = plots.overlay(Image.new("RGB", (50, 50), "grey"), np.full((7, 7), 1 / 49, dtype=np.float32))
    assert flat.startswith("data:image/jpeg")


def test_figures_take_the_pages_colours(world: World) -> None:
    drawing = (world.layout.result("scoring") / "plots" / "scatter.svg").read_bytes()
    shown = plots.inline(drawing, 3, 'a "label"')
    assert shown.startswith('<svg role="img" aria-label="a &quot;label&quot;"')
    assert "var(--first)" in shown and plots.plots.ACCENT not in shown
    assert not re.search(r'<svg [^>]*(?<!-)(width|height)="', shown)
    assert all(target.startswith("f3-") for target in re.findall(r'(?:href="|url\()#([^")]*)', shown))


def test_curves_show_losses_and_not_the_learning_rate(world: World) -> None:
    ((name, drawing),) = plots.curves(world.layout.curves)
    assert name == "finetune-scores" and b"learning rate" not in drawing
    pd.DataFrame({"time": [1]}).to_csv(world.layout.curves / "other.csv", index=False)
    assert len(plots.curves(world.layout.curves)) == 1


def test_unknown_figures_are_words_and_never_zero() -> None:
    assert tables.number(None) == tables.number({}) == "not available"
    assert tables.number(0.0) == "0.000"
    assert table_cell("a|b\nc") == "a\\|b c"


def test_reported_figures_name_source_and_data_and_never_guess_calms() -> None:
    found = tables.words("reported")
    for table in found["tables"]:
        assert table["data"]
        for row in table["rows"]:
            assert len(row["values"]) == len(table["columns"]) and row["source"]
    own = {table["task"]: row["values"] for table in found["tables"] for row in table["rows"] if row["name"] == "CALM"}
    assert own["scoring"] == ["0.815", "0.829"]
    assert set(own["commenting"]) == set(own["personalised"]) == {"not available"}


# What is wider than the box that it is in (but for boxes that can be moved sideways), or leaves its card.
CUT_OFF = """
document.querySelectorAll('details').forEach(e => e.open = true);
const wide = e => e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !e.closest('svg') && !e.matches(arguments[0]);
const leaves = (e, card) => e.getBoundingClientRect().right > card.getBoundingClientRect().right;
const all = selector => [...document.querySelectorAll(selector)];
const found = all('body *').filter(wide).concat(all('.card *').filter(e => leaves(e, e.closest('.card'))));
return found.map(e => e.outerHTML.slice(0, 80));
"""
# Photographs that are cropped, or stand in a frame of another colour than the page or the card.
FRAMED = """
const colour = e => getComputedStyle(e).backgroundColor;
const plain = ['body', 'article'].map(name => colour(document.querySelector(name))).concat('rgba(0, 0, 0, 0)');
const whole = e => getComputedStyle(e).objectFit == 'contain' && plain.includes(colour(e)) &&
  plain.includes(colour(e.parentElement));
return [...document.querySelectorAll('article img')].map(whole);
"""


@pytest.mark.parametrize(("width", "movable"), [(1200, "none"), (390, ".scroll")])
def test_nothing_is_cut_off_and_photographs_stand_whole_on_the_page(
    width: int, movable: str, browser: Any, world: World
) -> None:
    written(world)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(world.layout.report.as_uri())
    assert browser.execute_script(CUT_OFF, movable) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert set(browser.execute_script(FRAMED)) == {True}
