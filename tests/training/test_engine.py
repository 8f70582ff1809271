"""The loop: schedule, resuming to the bit, damage, and stopping with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from calm.training.loop import engine
from calm.training.loop.engine import Run, TrainingError, finish, train, write_curve
from calm.training.loop.order import Order, Part
from calm.training.settings import Optimisation, Strategy

STEPS = 12
OPTIONS = Optimisation(
    steps=STEPS,
    batch_size=4,
    learning_rate=0.1,
    warmup=0.25,
    weight_decay=0.0,
    max_grad_norm=1.0,
    checkpoint_every=2,
)


class Killed(BaseException):
    """What no `except Exception` catches."""


class Line:
    """A noisy regression: the noise comes from torch's own generator, as dropout's does."""

    def __init__(
        self, stop: int | None = None, change: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        self.model = torch.nn.Module()  # strategies other than `single` would share it out
        self.weight = torch.nn.Parameter(torch.tensor([[0.5, -0.5]]))
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.parameters = {"weight": self.weight, "bias": self.bias}
        self.order = Order(10, 4, 3, "line")
        self.stop, self.change = stop, change
        self.points = torch.linspace(-1, 1, 20).view(10, 2)

    def read(self, step: int, part: Part) -> list[int]:
        everyone = self.order(step)
        return everyone[part.slice(len(everyone))]

    def losses(self, step: int, part: Part, read: list[int]) -> dict[str, torch.Tensor]:
        if step == self.stop:
            raise Killed
        points = self.points[read]
        noise = 0.1 * torch.randn(len(points), 1)
        found = points @ self.weight.T + self.bias + noise
        loss = (found - points.sum(1, keepdim=True) - 1).square().mean() / part.of
        return {"loss": self.change(step, loss) if self.change else loss}


def run_in(state: Path, **changes: Any) -> Run:
    settings: dict[str, Any] = {
        "title": "line",
        "optimisation": OPTIONS,
        "strategy": Strategy(kind="single"),
        "seed": 3,
        "state": state,
        "inputs": ["data"],
    }
    return Run(**settings | changes)


def newest(run: Run) -> Path:
    return sorted(run.checkpoints.glob("step-*"))[-1]


@pytest.fixture
def uninterrupted(tmp_path: Path) -> tuple[Line, pd.DataFrame]:
    line = Line()
    return line, train(line, run_in(tmp_path / "uninterrupted"))


def same(line: Line, other: Line) -> bool:
    return all(torch.equal(value, other.parameters[name]) for name, value in line.parameters.items())


def kill(run: Run, step: int) -> None:
    with pytest.raises(Killed):
        train(Line(stop=step), run)


def test_warm_up_is_linear_and_then_a_cosine_falls_to_zero(uninterrupted: tuple[Line, pd.DataFrame]) -> None:
    rates = uninterrupted[1]["learning_rate"].tolist()
    warm_up = [0.1 * step / 3 for step in range(3)]
    cosine = [0.05 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
    assert rates == pytest.approx([*warm_up, *cosine])


def test_training_learns(uninterrupted: tuple[Line, pd.DataFrame]) -> None:
    losses = uninterrupted[1]["loss"]
    assert losses.iloc[-3:].mean() < 0.7 * losses.iloc[:3].mean()


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    uninterrupted: tuple[Line, pd.DataFrame], tmp_path: Path
) -> None:
    again, other = Line(), Line()
    curve = train(again, run_in(tmp_path / "again"))
    train(other, run_in(tmp_path / "other", seed=4))
    assert same(again, uninterrupted[0])
    pd.testing.assert_frame_equal(curve, uninterrupted[1], check_exact=True)
    assert not same(other, uninterrupted[0])


def test_resuming_goes_on_from_the_last_checkpoint_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_in(tmp_path / "state")
    kill(run, 7)
    seen: list[int] = []
    train(Line(change=lambda step, loss: (seen.append(step), loss)[1]), run)
    assert seen == list(range(6, STEPS))
    assert "line: resumed at step 6" in capsys.readouterr().err


def test_a_damaged_checkpoint_falls_back_to_the_one_before_loudly(
    uninterrupted: tuple[Line, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_in(tmp_path / "state")
    kill(run, 7)
    (newest(run) / "run.json").write_bytes(b"\x00" * 64)  # other damages: test_checkpoints.py
    line = Line()
    train(line, run)
    said = capsys.readouterr().err.replace("\n", "")
    assert "damaged checkpoint" in said and "step-00000006" in said
    assert "resumed at step 4" in said
    assert same(line, uninterrupted[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"inputs": ["other data"]},
        {"optimisation": OPTIONS.model_copy(update={"learning_rate": 0.2})},
        {"title": "another stage"},
    ],
    ids=["seed", "inputs", "learning_rate", "title"],
)
def test_a_checkpoint_of_another_configuration_is_not_resumed(tmp_path: Path, changes: dict[str, Any]) -> None:
    kill(run_in(tmp_path / "state"), 11)
    clean, resumed = Line(), Line()
    train(clean, run_in(tmp_path / "clean", **changes))
    other = run_in(tmp_path / "state", **changes)
    kill(other, 5)
    assert newest(other).name == "step-00000004"  # its own, beside later ones of the other configuration
    train(resumed, other)
    assert same(clean, resumed)


def test_a_checkpoint_of_other_code_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(tmp_path / "state")
    kill(run, 11)
    monkeypatch.setattr(engine, "code_sha256", lambda *packages: "edited")
    seen: list[int] = []
    train(Line(change=lambda step, loss: (seen.append(step), loss)[1]), run)
    assert seen == list(range(STEPS))


def test_code_is_everything_that_a_step_and_an_answer_read() -> None:
    package = Path(engine.__file__).parents[2]
    read = {path.relative_to(package).as_posix() for name in engine.CODE for path in (package / name).rglob("*")}
    step = {"training/loop/engine.py", "model/mfam.py", "attributes/catalogue/sharpness.yaml"}
    assert step | {"assistant/assistant.py", "instructions/__init__.py"} <= read
    assert "evaluation/statistics/ridge.py" not in read


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_clearly_and_keeps_the_checkpoint(tmp_path: Path, number: float) -> None:
    run = run_in(tmp_path / "state")
    with pytest.raises(TrainingError, match=r"line: the loss of step 5 is (nan|inf): try a lower learning rate"):
        train(Line(change=lambda step, loss: loss * number if step == 5 else loss), run)
    assert newest(run).name == "step-00000004"


def test_a_gradient_that_is_no_number_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    run = run_in(tmp_path / "state")
    square_root_at_zero = lambda step, loss: (loss * 0).sqrt() if step == 5 else loss  # noqa: E731
    with pytest.raises(TrainingError, match="the gradient of step 5 is nan"):
        train(Line(change=square_root_at_zero), run)
    assert newest(run).name == "step-00000004"


def test_finished_runs_leave_no_state(tmp_path: Path) -> None:
    run = run_in(tmp_path / "state")
    train(Line(), run)
    assert run.state.exists()
    finish(run)
    assert not run.state.exists()
    finish(run)  # nothing to forget


def test_curves_hold_no_times(uninterrupted: tuple[Line, pd.DataFrame], tmp_path: Path) -> None:
    write_curve(tmp_path / "curves" / "line.csv", uninterrupted[1])
    columns = pd.read_csv(tmp_path / "curves" / "line.csv").columns.tolist()
    assert columns == ["step", "loss", "learning_rate", "gradient_norm"]
