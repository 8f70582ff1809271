"""No photograph of a test set is left in a training list: planted leaks of every kind are found and taken out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from calm.data.leakage import audit
from calm.data.leakage import stage as leakage
from calm.data.leakage.near_duplicates import Looks
from calm.data.leakage.stage import REASONS, Corpus, filter_leakage, find_leaks, integers
from calm.data.prepare import prepare
from calm.data.settings import LeakageParams
from calm.data.sources import fetch
from calm.data.splits import split
from calm.data.store import tables
from calm.data.store.fingerprints import SIDE, fingerprint, perceptual_hash
from calm.data.store.tables import SPLIT
from calm.io import write_table
from calm.layout import Layout
from calm.params import Params, load_params
from tests.data.conftest import MakeParams, picture

RULES = LeakageParams(phash_distance=8, correlation=0.85, caption_words=8)
RATERS = {"test_share": 0.5, "shots": [2], "draws": 2, "least_queries": 1}
NO_REMOVAL = dict.fromkeys(REASONS, 0)
Row = tuple[dict[str, str], Image.Image]


def row(item_id: str, image: int | Image.Image, dataset: str = "d", **changes: str) -> Row:
    """An item that shows a picture, given or drawn by number."""
    columns = {
        "dataset": dataset,
        "item_id": item_id,
        "group": item_id,
        "sha256": f"sha-{dataset}-{item_id}",
        **changes,
    }
    return columns, picture(image) if isinstance(image, int) else image


def corpus_of(
    train: Sequence[Row], test: Sequence[Row], texts: Sequence[tuple[str, str, str]] = ()
) -> tuple[Corpus, np.ndarray]:
    """As `corpus.load` makes it, and the positions of the training items. Texts: item id, text, origin."""
    rows = [
        (columns | {"split": split}, image)
        for split, part in (("train", train), ("test", test))
        for columns, image in part
    ]
    rows.sort(key=lambda one: (one[0]["dataset"], one[0]["item_id"]))
    items, images = pd.DataFrame([columns for columns, _ in rows]), [image for _, image in rows]
    items["photograph"] = items["item_id"].str.replace(r"#v\d+$", "", regex=True)
    whole = [[perceptual_hash(image), perceptual_hash(ImageOps.mirror(image))] for image in images]
    prints = [fingerprint(image) for image in images]
    looks = Looks(
        integers(pd.Series(np.ravel(whole))).reshape(-1, 2),
        np.stack([np.frombuffer(one.crops, "<u8") for one in prints]),
        np.stack([np.frombuffer(one.thumbnail, np.uint8).reshape(SIDE, SIDE) for one in prints]),
    )
    place = {item_id: number for number, item_id in enumerate(items["item_id"])}
    said = pd.DataFrame(
        [(place[item], text, origin) for item, text, origin in texts], columns=["item", "text_clean", "origin"]
    )
    return Corpus(items, looks, said), np.flatnonzero(items["split"] == "train")


def recompressed(image: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Shares of the sides cut off."""
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


COMMENT = "The light on the wet stones leads the eye straight to the door."


@pytest.fixture
def planted() -> tuple[Corpus, np.ndarray]:
    """Training and test items with one leak of each kind, and views of leaked photographs."""
    test = [
        row("t1", 1),
        row("t2", 2),
        row("t3", 3, group="shoot"),
        row("t4#v01", 4),
        row("953", 5, "ava"),
        row("t6", cropped(picture(6), 0.07, 0, 0.02, 0.04)),
    ]
    train = [
        row("953", 50, "captions"),
        row("t4", 51),
        row("copy", 52, "other", sha256="sha-d-t1"),
        row("shot", 53, group="shoot"),
        row("shot-elsewhere", 54, "other", group="shoot"),
        row("recompressed", recompressed(picture(1), 40), "other"),
        row("smaller", picture(4).resize((80, 60)), "other"),
        row("smaller#v00", 56, "other", group="smaller"),
        row("mirrored", ImageOps.mirror(picture(2)), "other"),
        row("cropped", recompressed(cropped(picture(3), 0.08, 0.03, 0.0, 0.06)), "other"),
        row("cropped-mirrored", ImageOps.mirror(cropped(picture(1), 0.0, 0.05, 0.07, 0.0)), "other"),
        row("uncropped", 6, "other"),
        row("told", 59, "other"),
        *(row(f"clean{number}", 100 + number) for number in range(20)),
    ]
    texts = [
        ("t1", COMMENT, "human"),
        ("t2", "Nice shot!", "human"),
        ("t3", "A photograph with strong colours and a very good composition.", "synthetic_grammar"),
        ("told", "the light on the wet stones: leads the eye straight to the DOOR", "human"),
        ("clean1", "nice shot", "human"),
        ("clean2", "A photograph with strong colours and a very good composition.", "synthetic_grammar"),
    ]
    return corpus_of(train, test, texts)


def test_planted_leaks_are_found_with_their_reason(planted: tuple[Corpus, np.ndarray]) -> None:
    corpus, train = planted
    leaks = find_leaks(corpus, train, RULES).set_index("item_id")
    assert leaks["reason"].to_dict() == {
        "953": "id",
        "t4": "id",
        "copy": "sha256",
        "shot": "group",
        "recompressed": "phash",
        "smaller": "phash",
        "smaller#v00": "phash",
        "mirrored": "phash",
        "cropped": "crop",
        "cropped-mirrored": "crop",
        "uncropped": "crop",
        "told": "caption",
    }
    assert leaks["test_item_id"].to_dict() == {
        "953": "953",
        "t4": "t4#v01",
        "copy": "t1",
        "shot": "t3",
        "recompressed": "t1",
        "smaller": "t4#v01",
        "smaller#v00": "t4#v01",
        "mirrored": "t2",
        "cropped": "t3",
        "cropped-mirrored": "t1",
        "uncropped": "t6",
        "told": "t1",
    }
    assert leaks.loc["953", "test_dataset"] == "ava"
    alike = leaks[leaks["reason"].isin(["phash", "crop"])]
    assert (alike["distance"] <= 8).all()
    assert (alike["correlation"] >= 0.85).all()
    assert set(alike.index[alike["mirrored"] == True]) == {"mirrored", "cropped-mirrored"}  # noqa: E712
    assert leaks.loc["copy", ["distance", "correlation", "mirrored"]].tolist() == [None, None, None]


def test_an_independent_check_finds_nothing_afterwards(planted: tuple[Corpus, np.ndarray]) -> None:
    corpus, train = planted
    leaks = find_leaks(corpus, train, RULES)
    compared, before = audit.leaking(corpus, train, RULES)
    by_itself = leaks[~leaks["item_id"].str.contains("#")]  # a view leaks through its photograph
    assert before == by_itself.index.tolist()
    assert compared == len(train)
    kept = train[~np.isin(train, leaks.index)]
    assert audit.leaking(corpus, kept, RULES) == (20 + 1, [])
    assert find_leaks(corpus, kept, RULES).empty


@pytest.mark.parametrize("changes", [{"phash_distance": 0}, {"correlation": 1.0}])
def test_stricter_rules_leave_crops_in(planted: tuple[Corpus, np.ndarray], changes: dict[str, Any]) -> None:
    leaks = find_leaks(*planted, RULES.model_copy(update=changes))
    assert not leaks["item_id"].isin(["cropped", "uncropped", "cropped-mirrored"]).any()
    assert {"copy", "953", "told"} <= set(leaks["item_id"])


def test_longer_copies_only_where_params_say_so(planted: tuple[Corpus, np.ndarray]) -> None:
    assert "told" not in set(find_leaks(*planted, RULES.model_copy(update={"caption_words": 14}))["item_id"])
    lax = find_leaks(*planted, RULES.model_copy(update={"caption_words": 2}))
    assert lax.set_index("item_id")["reason"].to_dict()["clean1"] == "caption"


def test_flat_pictures_are_not_one_photograph() -> None:
    black = Image.new("RGB", (160, 120))
    corpus, train = corpus_of([row("a", black)], [row("b", black)])
    assert find_leaks(corpus, train, RULES).empty
    assert audit.leaking(corpus, train, RULES) == (0, [])


def test_no_test_items_means_no_leaks() -> None:
    corpus, train = corpus_of([row("a", 1), row("b", 1)], [])
    assert find_leaks(corpus, train, RULES).empty


def filtered(params: Params, layout: Layout) -> dict[str, object]:
    """Run the stages up to the filter; return its metrics."""
    for dataset in params.data.datasets:
        fetch(dataset, params, layout)
        prepare(dataset, params, layout)
    split(params, layout)
    filter_leakage(params, layout)
    metrics: dict[str, object] = json.loads((layout.lists / "leakage.json").read_text(encoding="utf-8"))
    return metrics


def test_the_stage_takes_planted_copies_out_of_every_list(scored: Path, scored_params: Params, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "first")
    filtered(scored_params, layout)
    held_out = tables.splits(layout, "local").query("split == 'test'")["item_id"].iloc[0]
    original = next(scored.glob(f"{held_out}.*"))
    (scored / "same-bytes.png").write_bytes(original.read_bytes())
    with Image.open(original) as image:
        ImageOps.mirror(image.convert("RGB")).save(scored / "turned.jpg", quality=70)
        cropped(image.convert("RGB"), 0.07, 0.0, 0.03, 0.06).save(scored / "tighter.jpg", quality=70)
    lines = (scored / "scores.csv").read_text(
        encoding="utf-8"
    ) + "same-bytes.png,3,,\nturned.jpg,3,,\ntighter.jpg,3,,\n"
    (scored / "scores.csv").write_text(lines, encoding="utf-8")

    layout = Layout(tmp_path / "second")
    fetch("local", scored_params, layout)
    prepare("local", scored_params, layout)
    known = tables.items(layout, "local")["item_id"]
    chosen = ["test" if item_id == held_out else "train" for item_id in known]
    frame = pd.DataFrame({"dataset": "local", "item_id": known, "split": chosen, "rule": "planted"})
    write_table(layout.splits / "local.parquet", frame, SPLIT)
    filter_leakage(scored_params, layout)
    removed = tables.removed(layout)
    for role in ("unlabelled", "scores"):
        reasons = removed[removed["role"] == role].set_index("item_id")["reason"].to_dict()
        assert reasons == {"same-bytes": "sha256", "turned": "phash", "tighter": "crop"}
        listed = tables.role_list(layout, role)
        assert len(listed[listed["split"] == "train"]) == 11
    metrics = json.loads((layout.lists / "leakage.json").read_text(encoding="utf-8"))
    assert (metrics["leaked_after"], metrics["audited"]) == (0, 11)
    assert metrics["roles"]["scores"] == {
        "train": 11,
        "validation": 0,
        "test": 1,
        "removed": NO_REMOVAL | {"sha256": 1, "phash": 1, "crop": 1},
    }


@pytest.mark.parametrize("sees", [2, 0])
def test_leaks_that_were_not_filtered_are_counted(
    sees: int, scored: Path, scored_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """leaked_after is no constant: it is not 0 after a filter that found nothing the first time, or at all."""
    for number in range(11):
        (scored / f"p{number:02d}.png").write_bytes((scored / "p00.png").read_bytes())
    calls = []

    def blind(corpus: Corpus, train: np.ndarray, rules: LeakageParams) -> pd.DataFrame:
        calls.append(len(train))
        leaks = find_leaks(corpus, train, rules)
        return leaks if len(calls) == sees else leaks.iloc[:0]

    monkeypatch.setattr(leakage, "find_leaks", blind)
    metrics = filtered(scored_params, Layout(tmp_path))
    assert len(calls) == 2
    assert metrics["leaked_after"] == len(tables.role_list(Layout(tmp_path), "scores").query("split == 'train'")) - 1


def test_lists_hold_what_their_role_needs(few_photos: Path, make_params: MakeParams, tmp_path: Path) -> None:
    roles = {role: ["photos"] for role in tables.ROLES}
    settings = {"views": 2, "max_edits": 2, "raters": 2, "ratings_per_rater": 8, "comments": 1, "praise": 1}
    layout = Layout(tmp_path)
    metrics = filtered(make_params({"photos": settings}, roles), layout)
    assert metrics["leaked_after"] == 0
    lists = {role: tables.role_list(layout, role) for role in tables.ROLES}
    for role in ("unlabelled", "generic"):
        assert len(lists[role]) == 8
        assert not lists[role]["item_id"].str.contains("#").any()
    assert len(lists["comments"]) == len(lists["scores"]) == 24
    given = tables.ratings(layout, "photos")
    assert set(lists["raters"]["item_id"]) == set(given.loc[given["rater_id"].notna(), "item_id"])
    for frame in lists.values():
        assert {"train", "test"} <= set(frame["split"])


def test_photographs_that_people_score_low_are_no_examples_of_sound_ones(
    scored: Path, scored_params: Params, tmp_path: Path
) -> None:
    data = scored_params.data.model_copy(update={"well_taken": 0.5})
    params, layout = scored_params.model_copy(update={"data": data}), Layout(tmp_path)
    filtered(params, layout)
    ratings = tables.ratings(layout, "local")
    scores = ratings[ratings["rater_id"].isna()].set_index("item_id")["score"]
    everything, sound = tables.role_list(layout, "scores"), tables.role_list(layout, "unlabelled")
    left_out = everything[~everything["item_id"].isin(sound["item_id"])]
    assert len(left_out) == sum(len(part) // 2 for _, part in everything.groupby("split"))
    for split_name, part in left_out.groupby("split"):
        stay = sound.loc[sound["split"] == split_name, "item_id"]
        assert scores[part["item_id"]].max() <= scores[stay].min()


def test_a_role_that_a_dataset_cannot_serve_is_an_error(folder: Path, make_params: MakeParams, tmp_path: Path) -> None:
    settings = {"root": str(folder), "licence": "test"}
    params = make_params({"local": settings}, {"unlabelled": ["local"], "scores": ["local"]})
    with pytest.raises(ValueError, match=r"data\.roles\.scores names 'local', which has nothing for it"):
        filtered(params, Layout(tmp_path))
    assert not Layout(tmp_path).lists.exists()


def stages(file: Path, root: Path) -> None:
    params, layout = load_params(file), Layout(root)
    split(params, layout)
    filter_leakage(params, layout)


def test_lists_do_not_depend_on_order_locale_or_threads(
    few_photos: Path, make_params: MakeParams, tmp_path: Path
) -> None:
    roles = {role: ["photos"] for role in tables.ROLES}
    settings = {"views": 2, "max_edits": 2, "raters": 4, "ratings_per_rater": 24, "comments": 1, "praise": 1}
    params = make_params({"photos": settings}, roles, split={"raters": RATERS})
    first, second = Layout(tmp_path / "first"), Layout(tmp_path / "second")
    for number, layout in enumerate((first, second)):
        threads = params.threads.model_copy(update={"prepare": 1 + 2 * number})
        fetch("photos", params, layout)
        prepare("photos", params.model_copy(update={"threads": threads}), layout)
    folder = second.prepared("photos")
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.take(np.random.default_rng(3).permutation(len(table))), path)
    file = tmp_path / "params.json"  # which is YAML
    file.write_text(params.model_dump_json(), encoding="utf-8")
    stages(file, first.root)
    environment = {**os.environ, "LC_ALL": "tr_TR.UTF-8", "OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "11"}
    code = f"from pathlib import PosixPath; from {__name__} import stages; stages({file!r}, {second.root!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parents[2])
    written = []
    for layout in (first, second):
        files = [
            path for path in sorted(layout.root.rglob("*")) if {"splits", "lists"} & set(path.parts) and path.is_file()
        ]
        written.append({path.relative_to(layout.root): path.read_bytes() for path in files})
    assert len(written[0]) == 3 + 7
    assert written[0] == written[1]
    assert not tables.support_sets(first, "photos").empty
