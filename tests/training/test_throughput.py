"""Figures of speed: what is counted is right, the model stays as it was, and nothing of it is an output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from calm.training.loop.throughput import Meter, Throughput, machines, measured


class Mixed(nn.Module):
    """A frozen convolution, a trained layer, a frozen one that gradients pass, and words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 6)
        self.convolution = nn.Conv2d(3, 4, 3, padding=1, groups=1)
        self.trained = nn.Linear(4, 6)
        self.frozen = nn.Linear(6, 5)
        for part in (self.words, self.convolution, self.frozen):
            part.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        seen = self.convolution(pixels).flatten(2).transpose(1, 2)
        return self.frozen(self.trained(seen).relu() + self.words(ids)).sum()


def test_flops_are_those_of_torchs_counter_and_tokens_those_that_were_embedded() -> None:
    model = Mixed()
    inputs = torch.randn(2, 3, 4, 4), torch.zeros(2, 16, dtype=torch.long)
    meter = Meter(model)
    with FlopCounterMode(display=False) as counter:
        model(*inputs).backward()
    meter.close()
    assert meter.flops == counter.get_total_flops() > 0
    assert meter.tokens == 32
    model(*inputs)
    assert meter.tokens == 32  # no longer watched


def test_what_checkpointing_computes_again_is_not_counted_twice() -> None:
    layer = nn.Linear(8, 8)
    values = torch.randn(4, 8, requires_grad=True)
    counts = []
    for again in (False, True):
        meter = Meter(nn.Sequential(layer))
        output = torch.utils.checkpoint.checkpoint(layer, values, use_reentrant=False) if again else layer(values)
        output.sum().backward()
        meter.close()
        counts.append(meter.flops)
    assert counts[0] == counts[1] == 3 * 2 * 4 * 8 * 8


def test_figures_are_told_and_written_beside_the_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    model = Mixed()
    with measured("toy", model, 2, 3, path) as stepped:
        for padding in (0.1, 0.2, 0.3):
            model(torch.randn(2, 3, 4, 4), torch.zeros(2, 16, dtype=torch.long)).backward()
            stepped(padding)
    written: dict[str, Any] = json.loads(path.read_text())
    assert (written["steps"], written["processes"]) == (3, 3)
    assert written["samples_per_second"] * written["seconds"] == pytest.approx(2 * 2)  # the first step is not timed
    assert written["tokens_per_second"] * written["seconds"] == pytest.approx(2 * 32 * 3)
    assert 0 < written["mfu"] == pytest.approx(written["flops_per_second"] / written["peak"])
    assert written["padding"] == pytest.approx(0.2)
    told = capsys.readouterr().err
    assert "toy: 3 steps" in told and "(20.0% padding)" in told


def test_a_process_without_a_log_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with measured("toy", Mixed(), 2, 2, None) as stepped:
        stepped(None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_gpu_is_found_by_its_drivers_name(device: str, name: str | None) -> None:
    table = machines()
    assert table.of_device(device) == (table.gpu(name) if name else None)


def test_every_run_leaves_figures_of_its_speed_beside_its_state_alone(trained_template: Any) -> None:
    layout = trained_template.layout
    for run in ("pretrain-attributes", "pretrain-alignment", "finetune-comments", "finetune-scores"):
        figures = json.loads((layout.root / ".state" / f"{run}.throughput.json").read_text(encoding="utf-8"))
        assert figures["samples_per_second"] > 0 and figures["tokens_per_second"] > 0 and figures["mfu"] > 0
        assert (figures["padding"] is None) == (run == "pretrain-attributes")  # its questions are alike


def test_more_than_the_peak_is_no_share_but_a_busy_machine() -> None:
    found = Throughput("run", 2, 1.0, 1, 1.0, 1.0, 2e9, None, 1e9, "measured product")
    assert found.mfu is None and "MFU unknown" in str(found)
    assert replace(found, peak=4e9).mfu == 0.5
