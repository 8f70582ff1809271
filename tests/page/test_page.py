"""The page in a browser, end to end: by the model that comes with calm."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import tiny
from tests.page.conftest import Server

PATIENCE = 120  # seconds, on a busy machine


def find(browser: Any, css: str) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", css)
    return found


def wait(browser: Any, condition: Callable[[], Any]) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = (StaleElementReferenceException,)  # the page was drawn anew while it was looked at
    return WebDriverWait(browser, PATIENCE, ignored_exceptions=ignored).until(lambda _: condition())


def names(browser: Any) -> list[str]:
    """Of the cards, as the page shows them, once it is done."""
    wait(browser, lambda: "..." not in status(browser))
    return [card.text for card in find(browser, ".calm-card h3")]


def status(browser: Any) -> str:
    return " ".join(line.text for line in find(browser, ".calm [role=status]"))


def open_page(browser: Any, server: Server, width: int = 1200, scheme: str = "light") -> None:
    """At a width, light or dark, with the folder's photographs."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(server.address)
    wait(browser, lambda: len(names(browser)) == 3)


def drop(browser: Any, *paths: Path) -> None:
    field = wait(browser, lambda: find(browser, "input[type=file]"))[0]
    field.send_keys("\n".join(map(str, paths)))


def press(browser: Any, text: str) -> None:
    next(button for button in find(browser, "button") if button.text == text).click()


def rate(browser: Any, scores: dict[str, str]) -> None:
    for name, score in scores.items():
        (field,) = find(browser, f"input[aria-label*='{name}']")
        field.clear()
        field.send_keys(score, "\t")


def download(browser: Any) -> pd.DataFrame:
    path = browser.downloads / "calm.csv"
    path.unlink(missing_ok=True)
    find(browser, ".calm-csv")[0].click()
    wait(browser, path.exists)
    return pd.read_csv(path)


@pytest.fixture
def page(browser: Any, server: Server) -> Any:
    open_page(browser, server)
    return browser


def test_photographs_are_dropped_rated_and_shown_in_ones_own_order(page: Any, server: Server, tmp_path: Path) -> None:
    from calm.assistant import Calm

    for number in (3, 4):
        tiny.picture(number).save(tmp_path / f"p{number}.jpg")
    drop(page, tmp_path / "p3.jpg", tmp_path / "p4.jpg")
    wait(page, lambda: len(names(page)) == 5)
    assert server.uploads() == []
    assert [card.text[:1] for card in find(page, ".calm-comment")] != [""] * 5
    assert len(find(page, ".calm-looked img")) == 15

    table = download(page)
    assert names(page) == table["file"].tolist()
    assert table["score"].is_monotonic_decreasing
    assert table["own"].isna().all()
    paths = {path.name: path for folder in (server.folder, tmp_path) for path in folder.iterdir()}
    said = Calm.from_pretrained(device="cpu").score([paths[name] for name in table["file"]])
    assert table["score"].tolist() == pytest.approx([one.regression for one in said], abs=1e-4)
    assert table["spread"].tolist() == pytest.approx([one.spread for one in said], abs=1e-4)
    assert table["percentile"].tolist() == pytest.approx([one.percentile for one in said], abs=1e-2)
    shown = [float(score.text) for score in find(page, ".calm-score b")]
    assert shown == pytest.approx(table["score"].tolist(), abs=0.051)

    press(page, "In my own order")
    wait(page, lambda: "You have scored 0" in status(page))
    rate(page, {"p0.png": "11"})
    wait(page, lambda: "11 is not from 1 to 10" in " ".join(toast.text for toast in find(page, ".toast-body")))
    wait(page, lambda: not find(page, ".toast-body"))
    worst_first = {name: str(2 + 1.5 * place) for place, name in enumerate(names(page))}
    rate(page, worst_first)
    press(page, "In my own order")
    wait(page, lambda: "Learnt from 5 scores of yours" in status(page))
    own = download(page)
    assert own["own"].is_monotonic_decreasing
    assert own["own"].between(1, 10).all()
    assert dict(zip(own["file"], own["given"], strict=True)) == {n: float(s) for n, s in worst_first.items()}
    press(page, "By score")
    wait(page, lambda: "By score, best first" in find(page, ".calm")[0].text)
    assert names(page) == table["file"].tolist()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels and unpacks to some 100 MB of nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    nothing = zlib.compress(bytes(100_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", nothing) + chunk(b"IEND", b"")


HOSTILE = {
    "bomb.png": (png_header(60_000, 60_000), "more than the 200000000 allowed"),
    "300mp.png": (png_header(20_000, 15_000), "more than the 200000000 allowed"),
    "short.png": (png_header(10_000, 10_000), "truncated or damaged"),
    "drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "not a photograph"),
    "page.jpg": (b"<!doctype html><script>alert(1)</script>", "not a photograph"),
    "empty.jpg": (b"", "not a photograph"),
}


def test_hostile_files_end_in_a_message_and_leave_none(page: Any, server: Server, tmp_path: Path) -> None:
    for name, (data, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    drop(page, *(tmp_path / name for name in HOSTILE))
    wait(page, lambda: len(find(page, ".calm-problems li")) == len(HOSTILE))
    told = {line.text.partition(":")[0]: line.text for line in find(page, ".calm-problems li")}
    assert all(message in told[name] for name, (_, message) in HOSTILE.items())
    assert str(server.temporary) not in page.page_source
    assert len(names(page)) == 3
    assert server.uploads() == []


def test_a_file_that_is_no_photograph_by_its_name_is_refused_by_the_page(
    page: Any, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    drop(page, tmp_path / "drawing.svg")
    wait(page, lambda: find(page, ".toast-body") or find(page, ".calm-problems li"))
    assert server.uploads() == []


def test_names_are_text_whatever_they_hold(page: Any, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)> ${1+1} {{value}}.png"
    tiny.picture(5).save(tmp_path / name)
    drop(page, tmp_path / name)
    wait(page, lambda: len(names(page)) == 4)
    assert find(page, "img[src=x]") == []
    assert "2" not in next(shown for shown in names(page) if "onerror" in shown)


def test_nothing_is_asked_from_elsewhere(page: Any, server: Server) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(f"{server.address}/") for url in asked)
    assert [url for url in asked if not url.startswith((f"{server.address}/", "data:", "blob:", "chrome"))] == []
    assert [entry for entry in page.get_log("browser") if "Content Security Policy" in entry["message"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_cut_off(width: int, scheme: str, browser: Any, server: Server) -> None:
    open_page(browser, server, width, scheme)
    for summary in find(browser, ".calm-card summary"):
        summary.click()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    too_wide = "e => e.clientWidth && e.scrollWidth > e.clientWidth + 1"
    found = browser.execute_script(f"return [...document.querySelectorAll('.calm *')].filter({too_wide})")
    assert [element.get_attribute("outerHTML")[:80] for element in found] == []
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")[:3])) / 3
    assert lightness > 200 if scheme == "light" else lightness < 60


def test_everything_is_reached_by_the_tab_key(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    reached: list[tuple[str, str]] = []
    for _ in range(16):
        ActionChains(page).send_keys(Keys.TAB).perform()
        focused = page.switch_to.active_element
        reached.append((focused.tag_name, focused.text))
        if focused.tag_name == "summary" and not find(page, "details[open]"):
            focused.send_keys(Keys.ENTER)
    assert len(find(page, "details[open]")) == 1
    assert {text for tag, text in reached if tag == "button"} >= {"By score", "In my own order"}
    assert [tag for tag, _ in reached].count("input") >= 3
    assert ("a", "Download csv") in reached
    assert any("Click to Upload" in text for tag, text in reached if tag == "button")
