"""Plans against real steps of the tiny profile: parameters exact, FLOPs within 2 %, memory within 10 %."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from calm.params import Params
from calm.plan import Traces
from calm.plan.memory import Arrangement, Weights, on_each_gpu
from calm.plan.shapes import STAGES, add_adapters, asked, build, checkpointing, computed, open_stage, step_costs
from calm.training.loop.strategies import BETAS, MOMENTS, recompute_activations
from tests.plan.real import Step, allocations, step_of


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def params(trained_template: Any) -> Params:
    found: Params = trained_template.params()
    return found


@pytest.fixture
def step(stage: str, params: Params, trained_world: Any, monkeypatch: pytest.MonkeyPatch) -> Step:
    return step_of(stage, params, trained_world.layout, monkeypatch)


@pytest.fixture
def planned(stage: str, params: Params) -> Any:
    """The stage's model in shapes, as it is trained on a processor."""
    model = build(params, torch.float32, fused=False)
    if stage in STAGES[2:]:
        add_adapters(model, params)
    return model


def views(stage: str, params: Params) -> int:
    return params.pretrain.attributes.batch_size if stage == "attributes" else 4


def test_parameters_are_exact(stage: str, params: Params, step: Step, planned: Any) -> None:
    opened = open_stage(planned, stage, params)
    assert {name: tuple(p.shape) for name, p in opened.items()} == {n: tuple(p.shape) for n, p in step.trained.items()}
    weights = Weights.of(planned, {"mfam": planned.mfam})
    assert weights.parameters["all"] == sum(p.numel() for p in step.model.parameters())
    assert weights.parameters["trainable"] == sum(p.numel() for p in step.trained.values())
    held = sum(t.nbytes for t in [*step.model.parameters(), *step.model.buffers()])
    held += sum(one.mfam.get_buffer("words").nbytes * sign for one, sign in ((planned, 1), (step.model, -1)))
    assert weights.frozen_bytes + weights.trainable_bytes == pytest.approx(held, rel=0.01)  # prototypes' rows differ


def test_flops_are_within_2_percent_of_torchs_counter(stage: str, params: Params, step: Step, planned: Any) -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it knows no fused kernel of CPUs
        step.loss().backward()
    cost = step_costs(planned, stage, params, views(stage, params), step.lengths, step.questions, encode=False)
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "checkpointed"])
def test_memory_is_within_10_percent_of_what_was_allocated(
    stage: str, params: Params, step: Step, planned: Any, recompute: bool
) -> None:
    if recompute:
        recompute_activations(step.model)
    with checkpointing(planned, recompute):
        cost = step_costs(planned, stage, params, views(stage, params), step.lengths, step.questions, encode=False)
    memory = on_each_gpu(Weights.of(planned, {}), Arrangement("single", 1, 0, 4, recompute), cost.peak)

    optimizer = torch.optim.AdamW(step.trained.values(), betas=BETAS)
    step.loss().backward()
    optimizer.step()
    gradients = sum(p.grad.nbytes for p in step.trained.values() if p.grad is not None)
    states = sum(v.nbytes for state in optimizer.state.values() for name, v in state.items() if name in MOMENTS)
    assert memory.gradients == gradients
    assert memory.optimizer == states
    with allocations() as most:  # gradients are there already, as while a batch is accumulated
        step.loss().backward()
    assert memory.activations == pytest.approx(most(), rel=0.10)


def test_a_batch_is_planned_from_few_samples(stage: str, params: Params, step: Step, planned: Any) -> None:
    batch = views(stage, params)
    traces = Traces(lambda n, asked, _: step_costs(planned, stage, params, n, step.lengths, asked, encode=True))
    questions = asked(params, batch) if stage == "attributes" else 0
    many = step_costs(planned, stage, params, batch, step.lengths, round(questions), encode=True)
    flops, peak = traces.at(batch, questions, checkpointed=False)
    assert flops == pytest.approx(many.flops, rel=0.02)
    assert peak == pytest.approx(many.peak, rel=0.05)


def test_an_operation_without_values_gives_what_it_gave_and_a_real_one_is_computed() -> None:
    add, one = torch.ops.aten.add.Tensor, torch.empty(2, 3, device="meta")
    whole = torch.empty(3, dtype=torch.int64, device="meta")
    for other in (one, whole, one.T.contiguous().T):
        first, again = (computed(add, (one, other), {}) for _ in range(2))
        expected = add(one, other)
        assert first is not again
        for found in (first, again):
            assert (found.shape, found.stride(), found.dtype) == (expected.shape, expected.stride(), expected.dtype)
    assert computed(add, (torch.ones(2), torch.ones(2)), {}).tolist() == [2, 2]
    assert computed(torch.ops.aten.t.default, (one,), {})._base is one
