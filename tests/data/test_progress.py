"""Progress says how far work has come, how fast it goes, and how long it will take."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from calm.data import progress as module
from calm.data.progress import amounts, progress


@pytest.mark.parametrize(
    ("done", "total", "rate", "unit", "text"),
    [
        (3, 95, 12.14, "images", "3 of 95, 12.1 images/s"),
        (1234567, 33_000_000, None, "images", "1,234,567 of 33,000,000"),
    ],
)
def test_amounts_are_readable(done: float, total: float, rate: float | None, unit: str, text: str) -> None:
    assert amounts(done, total, rate, unit) == text


def test_a_log_gets_a_line_a_minute_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("prepare ava", 1000, "images", done=100) as advance:
        for _ in range(120):
            now[0] += 1.0
            advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "prepare ava: 220 of 1,000, 2.0 images/s, 6 min left",
        "prepare ava: 340 of 1,000, 2.0 images/s, 6 min left",
    ]


def test_a_terminal_gets_a_bar_and_standard_output_stays_what_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=120))
    with progress("prepare ava", 1000, "images", done=0) as advance:
        advance(500)
        print("a,line,of,csv")
        advance(500)
    assert capsys.readouterr().out == "a,line,of,csv\n"
    assert "prepare ava" in screen.getvalue()
    assert "1,000 of 1,000" in screen.getvalue()
