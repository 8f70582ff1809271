"""One process, killed at every step of twenty, ends with the bits of a run that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from calm.training.loop.engine import train
from calm.training.loop.order import Part
from calm.training.settings import Strategy
from tests.distributed.net import BATCH, COUNT, OPTIONS, STEPS, Killed, Net, run_in

STRATEGIES = {
    "whole": Strategy(kind="single"),
    "accumulated": Strategy(kind="single", micro_batch=2),
}


def finished(net: Net, state: Path, strategy: Strategy) -> pd.DataFrame:
    curve = train(net, run_in(state, strategy))
    assert curve is not None
    return curve


def test_epochs_end_within_steps_between_steps_and_between_checkpoints() -> None:
    ends = [epoch * COUNT / BATCH for epoch in range(1, STEPS * BATCH // COUNT)]
    assert {end % 1 == 0 for end in ends} == {True, False}
    assert any(end % OPTIONS.checkpoint_every for end in ends)


class Reads(Net):
    """Where it was read is part of what it sees."""

    def read(self, step: int, part: Part) -> Any:
        points = super().read(step, part)
        return points + torch.nn.functional.avg_pool1d(points.T, 3, 1, 1).T  # arithmetic of the reading process


@pytest.mark.parametrize("ahead", [{}, {"workers": 2}], ids=["", "ahead"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_killed_at_every_step_it_ends_as_if_it_had_not_been(
    tmp_path: Path, name: str, ahead: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """And as if all had been read by the process itself; with readers ahead, at every fourth step."""
    strategy = STRATEGIES[name].model_copy(update=ahead)
    whole, net = Reads(), Reads()
    expected = finished(whole, tmp_path / "whole", STRATEGIES[name])
    for step in range(0, STEPS, 4 if ahead else 1):
        with pytest.raises(Killed):
            train(Reads(stop=step), run_in(tmp_path / "killed", strategy))
    capsys.readouterr()
    curve = finished(net, tmp_path / "killed", strategy)
    assert f"net: resumed at step {step - step % OPTIONS.checkpoint_every}" in capsys.readouterr().err
    pd.testing.assert_frame_equal(curve, expected, check_exact=True)  # losses, learning rates, norms
    assert all(torch.equal(net.parameters[key], value) for key, value in whole.parameters.items())


def test_accumulation_keeps_the_batch_and_what_is_learned(tmp_path: Path) -> None:
    curves = {name: finished(Net(noise=0.0), tmp_path / name, STRATEGIES[name]) for name in ("whole", "accumulated")}
    assert (curves["accumulated"]["size"] == 8).all()
    pd.testing.assert_frame_equal(curves["accumulated"], curves["whole"], rtol=1e-4)


def test_a_run_goes_on_with_other_rounds_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = finished(Net(noise=0.0), tmp_path / "whole", STRATEGIES["whole"])
    with pytest.raises(Killed):
        train(Net(stop=11, noise=0.0), run_in(tmp_path / "state", STRATEGIES["accumulated"]))
    curve = finished(Net(noise=0.0), tmp_path / "state", STRATEGIES["whole"])
    assert "strategy.micro_batch was 2" in capsys.readouterr().err
    pd.testing.assert_frame_equal(curve, whole, rtol=1e-4)
