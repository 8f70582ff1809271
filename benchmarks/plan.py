"""`calm plan` beside what the demo's steps really take on this machine: parameters, FLOPs, memory, seconds.

    OMP_WAIT_POLICY=passive python -m benchmarks.plan [--steps 5] [--threads 2] [--dtype auto]

Seconds are of processor time, predicted from the operations that the plan counts and what is measured right after each
step (`benchmarks/machine.py`): every shape of matrix product in the plan, copies of memory, and operations that do
nothing. The median ratio is shown, and the least and the greatest. Then the features of photographs: encoded in every
step, kept in memory.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import Machine, Operations, processor_seconds, use_threads
from benchmarks.step import USES, Trained, feed_forward, in_shapes, lengths, objective, timed
from calm.attributes.taxonomy import taxonomy
from calm.data.store import tables
from calm.data.store.tables import GUIDANCE
from calm.io import read_table
from calm.layout import Layout
from calm.model.attention import use_plain_attention
from calm.model.build import assemble, resolve_dtype
from calm.model.pretrained import load_text_encoder
from calm.params import Params, load_params
from calm.plan.shapes import STAGES, open_stage
from calm.training.features import Features, Photographs
from calm.training.losses import TextBank
from calm.training.pretrain import AttributeObjective, state_table

ENCODED = 64


def stage(run: str, params: Params, steps: int) -> None:
    """One line of what was planned and what was found."""
    of = objective(run, params, Layout()) if run in USES else attributes(params, Layout())
    batch = of.order.batch_size
    words = lengths(of, 1)
    planned = in_shapes(run, params, batch, words)
    trained = sum(p.nbytes for p in of.parameters.values())
    products = dict.fromkeys(operation.product for operation in planned.operations if operation.product)
    found = []
    for _ in range(steps):  # the machine's rates beside each step: they change with what else it does
        (seconds,) = timed(lambda step: of.losses(1)["loss"], 1, of)
        machine = Machine.measured(resolve_dtype(params.runtime), feed_forward(of, batch, words), products)
        expected = machine.predicted(planned, trained)
        found.append((seconds / expected, seconds, expected, machine))
    found.sort(key=lambda one: one[0])
    ratio, seconds, expected, machine = found[steps // 2]
    flops, peak = counted(of), allocated(of)
    print(
        f"| {run} | {sum(p.numel() for p in of.parameters.values()):,} | {planned.flops / 1e9:.1f} | "
        f"{flops / planned.flops:.3f} | {planned.peak / 2**20:.0f} | {peak / planned.peak:.3f} | {expected:.2f} | "
        f"{seconds:.2f} | {ratio:.2f} | {found[0][0]:.2f} to {found[-1][0]:.2f} |"
    )
    print(f"  {machine}; slowest: {slowest(planned, machine)}")


def attributes(params: Params, layout: Layout) -> AttributeObjective:
    """Self-supervision on one kept view each of a few photographs."""
    rows = tables.role_list(layout, "unlabelled")
    rows = rows[rows["split"] == "train"].head(ENCODED)
    assembly = assemble(params, state_table(taxonomy()))
    use_plain_attention(assembly.model)
    open_stage(assembly.model, "attributes", params)
    keys = list(zip(rows["dataset"], rows["item_id"], strict=True))
    options = params.pretrain.attributes.model_copy(update={"views": 1})
    bank, encoder = TextBank(read_table(layout.texts, GUIDANCE)), load_text_encoder(params.parts.text)
    photographs = Photographs(layout, rows["dataset"])
    return AttributeObjective(assembly, bank, encoder, photographs, keys, options, params.seed)


def counted(of: Trained) -> int:
    """FLOPs of a step by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        of.losses(1)["loss"].backward()
    found: int = counter.get_total_flops()
    return found


def allocated(of: Trained) -> int:
    """Bytes of a step at the peak, gradients there already, by torch's profiler."""
    held = peak = 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        of.losses(1)["loss"].backward()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def slowest(cost: Operations, machine: Machine) -> str:
    """The kinds of operations that take most of the predicted time."""
    seconds: dict[str, float] = {}
    for operation in cost.operations:
        one = machine.seconds(operation)
        seconds[operation.name] = seconds.get(operation.name, 0.0) + one
    most = sorted(seconds, key=lambda name: -seconds[name])[:4]
    return ", ".join(f"{name} {seconds[name]:.2f} s" for name in most)


def features(params: Params) -> None:
    """Seconds for the features of a few photographs by each way of keeping them."""
    of = objective("alignment", params, Layout())
    keys = sorted({key for row in range(len(of.rows)) for key in of.keys[row]})[:ENCODED]
    photographs = of.features.photographs
    memory = Features(of.assembly, photographs, keep=True)
    ways = {"encoded in every step": Features(of.assembly, photographs, keep=False)}
    ways |= {"memory, first": memory, "memory": memory}
    for name, way in ways.items():
        started = processor_seconds()
        way(keys)
        print(f"| {name} | {(processor_seconds() - started) / len(keys) * 1e3:.2f} ms |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    chosen = parser.parse_args()
    use_threads(chosen.threads)
    params = load_params()
    runtime = params.runtime.model_copy(update={"dtype": chosen.dtype, "device": "cpu"})
    params = params.model_copy(update={"runtime": runtime})
    print(
        "| run | trained | GFLOPs planned | counted / planned | MiB planned | allocated / planned "
        "| s predicted | s | ratio | range |"
    )
    for run in chosen.runs:
        stage(run, params, chosen.steps)
    features(params)


if __name__ == "__main__":
    main()
