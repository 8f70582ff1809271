"""Rounds, parts and recomputed activations: what strategies need that one process can show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from calm.training.loop.engine import TrainingError, train
from calm.training.loop.order import Part
from calm.training.loop.processes import Processes
from calm.training.loop.strategies import accumulation, open_trainer, recompute_activations
from calm.training.settings import Strategy
from tests.distributed.net import OPTIONS, Net, run_in
from tests.training.test_objectives import objective, summed


@pytest.mark.parametrize(
    "batch, processes, micro, rounds",
    [(32, 1, 0, 1), (32, 1, 32, 1), (32, 1, 16, 2), (32, 4, 16, 1), (32, 4, 3, 4), (12, 1, 5, 3), (7, 1, 3, 7)],
)
def test_a_share_is_computed_in_the_fewest_equal_rounds(batch: int, processes: int, micro: int, rounds: int) -> None:
    launched = {"kind": "ddp", "launcher": "torchrun", "processes": processes} if processes > 1 else {"kind": "single"}
    assert accumulation(batch, Strategy(**launched, micro_batch=micro)) == rounds


def test_parts_cover_a_step_once() -> None:
    samples = list(range(12))
    for of in (1, 2, 3, 12):
        assert [sample for number in range(of) for sample in samples[Part(number, of).slice(12)]] == samples
    with pytest.raises(ValueError, match="12 samples cannot be shared evenly by 5"):
        Part(0, 5).slice(12)


def test_recomputed_activations_give_the_same_gradients(assembly: Any, tiny_template: Any) -> None:
    found = objective(assembly, tiny_template, "comments")
    found.parameters = dict(assembly.model.mfam.thematic.named_parameters())
    kept = summed(found, 0, 1)
    calls = []
    layer = assembly.model.language_model.model.layers[0].input_layernorm
    layer.register_forward_hook(lambda *_: calls.append(1))
    summed(found, 0, 1)
    assert len(calls) == 1
    recompute_activations(assembly.model)
    again = summed(found, 0, 1)
    assert len(calls) == 3  # once more in the backward pass
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0, msg=name)


def test_weights_in_coarse_numbers_are_not_shared_out() -> None:
    net = Net()
    net.model.to(torch.bfloat16)
    strategy = Strategy(kind="ddp", launcher="torchrun")
    with pytest.raises(TrainingError, match=r"trained in torch.bfloat16, too coarse .*runtime.dtype to float32"):
        open_trainer(net, OPTIONS, strategy, Processes(), None)


def test_a_loss_that_explodes_stops_before_checkpoints_are_displaced(tmp_path: Path) -> None:
    class Diverging(Net):
        def losses(self, step: int, part: Part, read: torch.Tensor) -> dict[str, torch.Tensor]:
            found = super().losses(step, part, read)
            return found | {"loss": found["loss"] * (1 if step < 10 else math.exp(2 * (step - 9)))}

    run = run_in(tmp_path)
    with pytest.raises(TrainingError, match=r"net: the loss of step 1\d has exploded: .*, usual are 1: try a lower"):
        train(Diverging(), run)
    assert min(path.name for path in run.checkpoints.iterdir()) in ("step-00000006", "step-00000009")


def test_processes_that_have_left_too_little_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="its processes have left 0 of 20 steps"):
        train(Net(), run_in(tmp_path, Strategy(kind="ddp", launcher="torchrun", processes=2)))
