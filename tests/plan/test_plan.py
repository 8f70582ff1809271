"""`calm plan`: arithmetic, what fits and what would, tables and JSON; the paper's profiles at full size."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from calm import profiles
from calm.cli import app
from calm.params import Params, parse_params
from calm.plan import Options, Plan, plan
from calm.plan.memory import Arrangement, Memory, Weights, on_each_gpu, what_fits
from calm.plan.shapes import STAGES
from calm.plan.tables import MEMORY, to_json
from calm.training.loop.throughput import GIB, machines
from calm.training.settings import Strategy
from tests.tiny import REPOSITORY

WEIGHTS = Weights({"all": 1000, "trainable": 100}, frozen_bytes=1800, trainable_bytes=400, block_bytes=50)
ZERO_2 = Arrangement("deepspeed", 4, 2, 8, False)


@cache
def of_paper() -> Plan:
    text = profiles.merged("paper", REPOSITORY / "params.yaml", REPOSITORY / "profiles")
    return plan(parse_params(YAML(typ="safe").load(text), "paper"), Options())


@pytest.fixture
def tiny_params(tiny_template: Any) -> Params:
    found: Params = tiny_template.params()
    return found


@pytest.fixture(scope="module")
def tiny_plan(tiny_template: Any) -> Plan:
    return plan(tiny_template.params(), Options(mfu=0.2, price_per_hour=3.0))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["-C", str(REPOSITORY), "plan", *arguments])


def test_the_papers_parameters_are_vicunas_clips_and_the_mfams() -> None:
    pretraining, tuning = of_paper().stages[0].weights.parameters, of_paper().stages[2].weights.parameters
    assert (pretraining["language"], pretraining["encoder"]) == (6_738_415_616, 303_507_456)
    rank, width, inner = 128, 4096, 11008
    adapters = 32 * rank * (4 * 2 * width + 3 * (width + inner))
    assert tuning["language"] - pretraining["language"] == adapters
    for stage in of_paper().stages:
        parts = {name: n for name, n in stage.weights.parameters.items() if name not in {"all", "trainable"}}
        assert sum(parts.values()) == stage.weights.parameters["all"]


def test_the_papers_flops_are_those_of_the_rule_of_thumb() -> None:
    """Two a weight and token forward, two back through frozen weights, two more for each trained one."""
    comments = of_paper().stages[2]
    layers = 6_738_415_616 - 2 * 32000 * 4096
    adapters = comments.weights.parameters["language"] - 6_738_415_616
    by_hand = comments.batch * comments.tokens * (4 * layers + 6 * adapters)
    assert by_hand < comments.flops < 1.2 * by_hand  # attention, the head, encoder and MFAM come on top


def test_the_papers_plan_fits_and_is_of_its_order() -> None:
    found = of_paper()
    assert not found.problems and (found.gpu, found.gpus) == ("A100-80GB", 8)
    stated = machines().paper
    assert stated.pretrain_hours / 2 < found.hours(STAGES[:2]) < stated.pretrain_hours * 2
    assert stated.finetune_hours / 2 < found.hours(STAGES[2:]) < stated.finetune_hours * 2


def test_the_test_split_of_ava_is_estimated_on_one_gpu() -> None:
    scoring = of_paper().evaluations[0]
    assert (scoring.task, scoring.items) == ("scoring", 19928)
    assert 0.1 < scoring.hours < 2 and scoring.memory_gib < 80


@pytest.mark.parametrize("name", ["paper", "paper-e"])
def test_plans_of_the_paper_print_full_tables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both profiles have one model and one recipe, so that one plan serves them."""
    monkeypatch.setattr("calm.plan.plan", lambda params, options: replace(of_paper(), profile=params.profile))
    found = run(name)
    assert found.exit_code == 0, found.output
    assert f"{name}: 8x A100-80GB" in found.output
    for row in (
        "encoder",
        "trainable",
        "tokens a sample",
        "PFLOPs a step",
        *MEMORY,
        "fits",
        "19,928",
        "the paper states",
    ):
        assert row in found.output


def test_both_profiles_of_the_paper_differ_in_data_alone() -> None:
    texts = [profiles.merged(n, REPOSITORY / "params.yaml", REPOSITORY / "profiles") for n in ("paper", "paper-e")]
    paper, extended = (YAML(typ="safe").load(text) for text in texts)
    assert {key for key in paper if paper[key] != extended[key]} == {"profile", "data"}


def test_hours_and_price_follow_the_machine(tiny_params: Params, tiny_plan: Plan) -> None:
    two = plan(tiny_params, Options(gpus=2, mfu=0.4, price_per_hour=3.0))
    for slow, fast in zip(tiny_plan.stages, two.stages, strict=True):
        assert slow.hours == pytest.approx(4 * fast.hours)
        assert slow.price == pytest.approx(3.0 * slow.hours) == pytest.approx(2 * fast.price)
        rate = machines().gpu(tiny_plan.gpu).tflops_float32 * 1e12 * 0.2  # the tiny profile computes in float32
        assert slow.hours * 3600 == pytest.approx(slow.flops * slow.steps / rate)


def test_a_plan_that_does_not_fit_is_refused_with_what_would(
    tiny_params: Params, tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(stage.memory.total for stage in tiny_plan.stages)
    small = machines().model_copy(update={"reserve_gib": 80 - 0.9 * largest / GIB})
    monkeypatch.setattr("calm.plan.machines", lambda: small)
    found = plan(tiny_params, Options())
    assert 0 < len(found.problems) == sum(not stage.fits for stage in found.stages)
    stage = next(stage for stage in found.stages if not stage.fits)
    assert stage.memory.total > found.memory_gib * GIB and stage.remedies
    assert "Would fit: " in found.problems[0] and "micro-batch" in found.problems[0]
    monkeypatch.setattr("calm.plan.plan", lambda params, options: found)
    refused = run("demo")
    assert refused.exit_code == 1 and "this plan does not fit" in refused.output


def test_json_says_what_the_tables_say(tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calm.plan.plan", lambda params, options: tiny_plan)
    written = json.loads(run("--json").output)
    assert written == json.loads(json.dumps(to_json(tiny_plan)))
    assert list(written["stages"]) == list(STAGES)
    for stage in written["stages"].values():
        parts = [stage["memory"][name] for name in MEMORY[:-1]]
        assert sum(parts) == stage["memory"]["total"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(gpu="Abacus"), "there is no GPU 'Abacus' in machines.yaml; there are: A100-80GB"),
        (Options(mfu=1.5), "above 0 and at most 1, found 1.5"),
        (Options(mfu=0.0), "above 0 and at most 1, found 0.0"),
        (Options(gpus=3), "cannot be shared evenly by 3 GPUs"),
    ],
)
def test_impossible_machines_are_named(tiny_params: Params, options: Options, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(tiny_params, options)


def test_micro_batches_are_those_of_the_loop() -> None:
    strategy = Strategy(kind="deepspeed", zero=2, launcher="torchrun", processes=8, micro_batch=6)
    assert Arrangement.of(strategy, 256) == Arrangement("deepspeed", 8, 2, 4, False)
    assert Arrangement.of(strategy, 256, gpus=64).micro_batch == 4
    assert Arrangement.of(Strategy(kind="single"), 12, gpus=4) == Arrangement("ddp", 4, 0, 3, False)


@pytest.mark.parametrize(
    ("arrangement", "expected"),
    [
        (Arrangement("single", 1, 0, 8, False), Memory(2200, 400, 800, 77, 0)),
        (Arrangement("ddp", 4, 0, 8, False), Memory(2200, 400, 800, 77, 400)),
        (Arrangement("fsdp2", 4, 3, 8, False), Memory(550, 100, 200, 77, 100)),
        (ZERO_2, Memory(2200, 100, 300, 77, 4_000_000_000)),
        (replace(ZERO_2, zero=3), Memory(550, 100, 300, 77, 4_000_002_200)),
    ],
    ids=["single", "ddp", "fsdp2", "zero2", "zero3"],
)
def test_each_strategy_shares_out_what_it_promises(arrangement: Arrangement, expected: Memory) -> None:
    assert on_each_gpu(WEIGHTS, arrangement, 77) == expected


def test_the_smallest_changes_that_fit_are_found() -> None:
    fits_small = what_fits(ZERO_2, 64, lambda other: other.micro_batch <= 4)
    assert replace(ZERO_2, micro_batch=4) in fits_small
    assert replace(ZERO_2, gpus=16, micro_batch=4) in fits_small
    assert what_fits(ZERO_2, 64, lambda other: other.checkpointing) == [replace(ZERO_2, checkpointing=True)]
    assert what_fits(ZERO_2, 64, lambda other: other.zero == 3) == [replace(ZERO_2, zero=3)]
    both = what_fits(ZERO_2, 64, lambda other: other.zero == 3 and other.micro_batch == 1 and other.checkpointing)
    assert both == [replace(ZERO_2, zero=3, micro_batch=1, checkpointing=True)]
    assert what_fits(ZERO_2, 64, lambda _: False) == []


def test_a_trace_counts_memory_until_nothing_refers_to_it() -> None:
    from calm.plan.shapes import Trace

    known = torch.empty(1000, device="meta", requires_grad=True)
    with Trace([known]) as trace:
        first = known * 2  # 4,000 bytes
        del first
        second = (known * 2).exp()  # 4,000 kept for the backward pass beside 4,000 that die after it
        second.sum()  # 4 more, when those are gone
    assert trace.peak == 8000
    assert trace.made == 12004 and trace.flops == 0


def test_a_trace_keeps_products_with_their_operands_as_they_lie() -> None:
    from benchmarks.machine import Matrix, Operations, Product

    states, weight = torch.empty(4, 6, device="meta"), torch.empty(5, 6, device="meta")
    with Operations([states, weight]) as trace:
        torch.nn.functional.linear(states, weight).exp()
    product, other = (operation for operation in trace.operations if operation.made)  # views make nothing
    operands = (Matrix((4, 6), (6, 1), torch.float32), Matrix((6, 5), (1, 6), torch.float32))
    assert product.product == Product("mm", operands) and product.made == 4 * 5 * 4
    assert other.product is None


def test_another_look_at_memory_moves_nothing() -> None:
    from benchmarks.machine import Operations

    tensor = torch.empty(4, 6, device="meta")
    with Operations([tensor]) as trace:
        tensor.view(24)
        torch.ops.aten._unsafe_view(tensor, [24])
    assert len(trace.operations) == 2 and trace.made == 0 == sum(operation.moved for operation in trace.operations)


def test_seconds_of_an_operation_are_its_products_else_its_roofline() -> None:
    from benchmarks.machine import FRESH, Machine, Matrix, Operation, Operations, Product, product_seconds

    narrow = Product("mm", (Matrix((8, 4), (4, 1), torch.float32), Matrix((4, 2), (1, 4), torch.float32)))
    assert product_seconds(narrow) > 0
    machine = Machine({torch.float32: 100.0}, bandwidth=10.0, fresh=1.0, overhead=0.5, products={narrow: 7.0})
    product = Operation("mm", 200, 10, torch.float32, 64, narrow)
    assert machine.seconds(product) == 7.5
    assert machine.seconds(product._replace(product=None)) == 2.5
    assert machine.seconds(Operation("exp", 0, 40, torch.float32, 64)) == 4.5
    assert machine.seconds(Operation("exp", 0, 40, torch.float32, FRESH + 1)) == 40.5
    trace = Operations()
    trace.operations.append(product)
    assert machine.roofline(trace) == 2.0
