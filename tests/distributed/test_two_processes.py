"""Two processes learn what one does, go on after a kill as if there had been none, and stop together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calm.training.loop.engine import train
from tests.distributed.net import STEPS, Net, run_in
from tests.distributed.two import RESUMED

KINDS = ["ddp", "fsdp2", "zero2", "zero3"]
STAGES = ["pretrain-attributes", "pretrain-alignment", "finetune-comments", "finetune-scores"]
TOLERANCE = 1e-4  # sums in another order; seen: 4e-6 after six steps


@pytest.mark.parametrize("name", RESUMED)
def test_killed_again_and_again_two_processes_end_with_the_same_bits(two: Any, name: str) -> None:
    seen = two(f"resume-{name}")
    assert len(seen["whole"]["curve"]) == STEPS
    assert seen["end"]["curve"] == seen["whole"]["curve"]  # losses, learning rates and gradient norms
    assert seen["end"]["weights"] == seen["whole"]["weights"]


def test_readers_ahead_change_no_bit_of_two_processes(two: Any) -> None:
    for name in ("", "-accumulated"):
        here, ahead = two(f"resume-zero2{name}")["whole"], two(f"resume-zero2{name}-ahead")["whole"]
        assert (here["curve"], here["weights"]) == (ahead["curve"], ahead["weights"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_goes_on_where_two_have_stopped(two: Any, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = two(f"world-{kind}")
    curve = train(Net(noise=0.0), run_in(Path(seen["state"])))
    said = capsys.readouterr().err
    assert "net: resumed at step 9" in said and "strategy.processes was 2" in said
    assert curve is not None
    of_two = [row["loss"] for row in seen["whole"]["curve"]]
    np.testing.assert_allclose(curve["loss"], of_two, rtol=1e-4)
    assert (curve["size"] == 8).all() and all(row["size"] == 8 for row in seen["whole"]["curve"])


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_go_on_where_one_has_stopped(two: Any, kind: str, tmp_path: Path) -> None:
    alone = train(Net(noise=0.0), run_in(tmp_path))
    assert alone is not None
    grown = pd.DataFrame(two(f"world-{kind}")["grown"]["curve"])
    np.testing.assert_allclose(grown["loss"], alone["loss"], rtol=1e-4)
    assert grown["loss"][:9].tolist() == alone["loss"][:9].tolist()  # what the one process has left
    assert (grown["size"] == 8).all()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(two: Any, kind: str, tmp_path: Path) -> None:
    curve = train(Net(noise=0.0), run_in(tmp_path))
    assert curve is not None
    seen = pd.DataFrame(two(f"world-{kind}")["whole"]["curve"])
    np.testing.assert_allclose(seen["loss"], curve["loss"], rtol=1e-4)
    np.testing.assert_allclose(seen["gradient_norm"], curve["gradient_norm"], rtol=1e-3)
    assert seen["learning_rate"].tolist() == curve["learning_rate"].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_every_stage_as_one_does(two: Any, trained_template: Any, kind: str, stage: str) -> None:
    """Each from the same start, with the same global batch; those of DDP one sample at a time."""
    curve, alone = pd.DataFrame(two(f"stages-{kind}")[stage]), pd.read_csv(trained_template.layout.curve(stage))
    assert len(curve) == len(alone) > 0
    for column in alone.columns.drop("gradient_norm"):
        np.testing.assert_allclose(curve[column], alone[column], rtol=TOLERANCE, atol=1e-5, err_msg=column)


def test_bfloat16_with_gradient_checkpointing_and_partitioned_weights_stays_near(
    two: Any, trained_template: Any
) -> None:
    curve = pd.DataFrame(two("stages-zero3-checkpointing")["finetune-comments"])
    alone = pd.read_csv(trained_template.layout.curve("finetune-comments"))
    np.testing.assert_allclose(curve["loss"], alone["loss"], rtol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_no_number_on_one_process_stops_both(two: Any, kind: str) -> None:
    seen = two(f"nan-{kind}")
    assert "the loss of step 7 is nan: try a lower learning rate" in seen["said"]
    assert seen["left"] == ["step-00000003", "step-00000006"]


def test_a_full_disk_on_one_process_stops_both_and_keeps_the_last_checkpoint(two: Any) -> None:
    seen = two("disk")
    assert "could not write" in seen["said"] and "No space left on device" in seen["said"]
    assert "step-00000003 is kept" in seen["said"]
    assert seen["left"] == ["step-00000003"]


def test_a_file_of_one_process_that_is_lost_costs_one_checkpoint(two: Any) -> None:
    seen = two("damaged")
    assert seen["lost"] == "step-00000009"
    assert seen["end"]["curve"] == seen["whole"]["curve"]
    assert seen["end"]["weights"] == seen["whole"]["weights"]
