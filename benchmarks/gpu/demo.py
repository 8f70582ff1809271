"""The demo's steps on the card beside the processor's: the same losses, the same scores, and resuming to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.report import Bench, Check, Found, first_line
from benchmarks.gpu.samples import Pictures, instructions, objective, options_of
from calm.assistant import Calm
from calm.model.attention import use_plain_attention
from calm.model.build import Assembly, add_lora
from calm.model.settings import LoRATuning, Runtime
from calm.params import Params
from calm.plan.shapes import STAGES
from calm.training.features import Features
from calm.training.finetune import open_for_training
from calm.training.loop.engine import Objective, Run, train
from calm.training.scores import VisualScoreObjective, visual_parameters
from calm.training.settings import Strategy

SECTION = "demo"
VISUAL = "visual"  # how S begins where the score head has a visual part
NAMES = {
    "attributes": "U, self-supervision",
    "alignment": "G, alignment",
    VISUAL: "S, visual part",
    "comments": "C, comments",
    "scores": "S, scores",
}
STEPS, BATCH = 4, 4
# Of the loss, relative: float32 sums in another order, with convolutions in TF32. In bfloat16 twice what it changes on
# one processor: .030 of the loss (S, third step), .03 points of a score with the released model.
LOSS = {"float32": 5e-3, "bfloat16": 6e-2}
POINTS = {"float32": 0.02, "bfloat16": 0.1}  # on the scale of 1 to 10

Make = Callable[[Runtime], Assembly]


@dataclass(frozen=True)
class Learnt:
    """What a run has come to: the loss of every step, the weights that it began with, and the trained ones."""

    losses: list[float]
    start: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]

    def same(self, other: Learnt) -> bool:
        """To the last bit."""
        return self.losses == other.losses and all(torch.equal(w, other.weights[n]) for n, w in self.weights.items())


class StopError(Exception):
    """The run ends here, as if it were killed."""


class Until:
    """An objective that ends its run at a step."""

    def __init__(self, of: Objective, step: int) -> None:
        self.of, self.step = of, step
        self.model, self.parameters, self.read = of.model, of.parameters, of.read

    def losses(self, step: int, part: Any, read: Any) -> dict[str, torch.Tensor]:
        """Those of the objective, before that step."""
        if step >= self.step:
            raise StopError
        return self.of.losses(step, part, read)


class Ground:
    """One assembly in one number format, and runs of every stage on it, each from the weights that it came with."""

    def __init__(self, make: Make, params: Params, shown: Pictures, device: str, dtype: str) -> None:
        runtime = Runtime(device=device, dtype=dtype, keep_features=True)  # type: ignore[arg-type]
        self.params, self.shown = params.model_copy(update={"runtime": runtime}), shown
        self.assembly = make(runtime)
        use_plain_attention(self.assembly.model)

    def learn(
        self, stage: str, folder: Path, start: Mapping[str, torch.Tensor] | None = None, until: int | None = None
    ) -> Learnt | None:
        """A run of a few steps; None of one that was stopped before its end.

        Args:
            start: weights to begin with; by default the assembly's own.
        """
        model, params = self.assembly.model, self.params
        if stage in STAGES[2:] and isinstance(params.finetune.tuning, LoRATuning) and not _adapted(model):
            add_lora(model, params.finetune.tuning, params.seed)
        of = self._visual() if stage == VISUAL else self._objective(stage)
        options = options_of(params, "scores" if stage == VISUAL else stage, BATCH, STEPS)
        before = _copied(of.parameters)
        _load(of.parameters, before if start is None else start)
        run = Run(f"gpu {stage}", options, Strategy(kind="single"), params.seed, folder / stage, [])
        try:
            curve = train(of if until is None else Until(of, until), run)
            assert curve is not None
            return Learnt(curve["loss"].tolist(), before, _copied(of.parameters))
        except StopError:
            return None
        finally:
            _load(of.parameters, before)

    def _objective(self, stage: str) -> Objective:
        options = options_of(self.params, stage, BATCH, STEPS)
        return objective(stage, self.assembly, self.params, self.shown, options)

    def _visual(self) -> Objective:
        params, rows = self.params, instructions("scores", len(self.shown.images))
        open_for_training(self.assembly, head=("visual",), q_formers=params.finetune.q_formers)
        features = Features(self.assembly, self.shown, keep=True)
        change = {"batch_size": BATCH, "steps": STEPS}
        options = params.finetune.scores.visual.model_copy(update=change)
        trained = visual_parameters(self.assembly.model)
        return VisualScoreObjective(self.assembly, features, trained, rows, options, params.seed, "gpu-visual")


def _copied(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def _load(parameters: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _adapted(model: torch.nn.Module) -> bool:
    return any("lora_" in name for name, _ in model.named_parameters())


def stages(params: Params) -> list[str]:
    """Runs of the demo in their order; adapters come last and stay."""
    return [*STAGES[:2], *([VISUAL] if params.mfam.score_width else []), *STAGES[2:]]


def demo(bench: Bench, make: Make, calm: Callable[[Runtime], Calm], params: Params, shown: Pictures) -> None:
    """All rows. The processor's runs are made once, the card's in each number format."""
    device = str(bench.device)

    @cache
    def ground(where: str, dtype: str) -> Ground:
        return Ground(make, params, shown, where, dtype)

    with TemporaryDirectory(prefix="calm-gpu-") as temporary:
        folder = Path(temporary)
        for stage in stages(params):
            bench.row(SECTION, f"{NAMES[stage]}: losses", partial(_losses, ground, device, stage, folder), need=20)
        for stage in stages(params):
            measure = partial(_resumed, ground, device, stage, folder)
            bench.row(SECTION, f"{NAMES[stage]}: resumed", measure, need=10)
    ground.cache_clear()
    bench.row(SECTION, "Calm.score", partial(_scores, calm, device, shown), need=15)


def _losses(ground: Callable[[str, str], Ground], device: str, stage: str, folder: Path) -> Found:
    expected = _run(ground("cpu", "float32"), stage, folder / "cpu")
    values: dict[str, Any] = {"cpu": expected.losses}
    checks = []
    for dtype, limit in LOSS.items():
        found = _run(ground(device, dtype), stage, folder / f"whole-{dtype}", expected.start)
        pairs = zip(found.losses, expected.losses, strict=True)
        worst = max(abs(one - other) / abs(other) for one, other in pairs)
        values[dtype] = found.losses
        checks.append(Check(f"{dtype} losses, relative", worst, limit))
    return Found(values, checks)


def _resumed(ground: Callable[[str, str], Ground], device: str, stage: str, folder: Path) -> Found:
    """As calm runs, and by torch's deterministic algorithms alone: where they differ, this is why."""
    on_card = ground(device, "bfloat16")
    values: dict[str, Any] = {}
    checks = []
    for name, choose in {"as it runs": _as_it_runs, "deterministic": _deterministic}.items():
        try:
            with choose():
                whole = _run(on_card, stage, folder / f"{name}-whole")
                stopped = on_card.learn(stage, folder / name, until=STEPS - 1)
                assert stopped is None, "the run was not stopped"
                values[name] = _run(on_card, stage, folder / name).same(whole)
        except RuntimeError as error:  # of an operation that torch has in no deterministic way
            values[name] = first_line(error)
        checks.append(Check(f"resumed to the bit, {name}", float(values[name] is True), 1, least=True))
    return Found(values, checks)


def _run(ground: Ground, stage: str, folder: Path, start: Mapping[str, torch.Tensor] | None = None) -> Learnt:
    found = ground.learn(stage, folder, start)
    assert found is not None
    return found


@contextmanager
def _as_it_runs() -> Iterator[None]:
    yield


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # with CUBLAS_WORKSPACE_CONFIG, which __main__ sets
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _scores(calm: Callable[[Runtime], Calm], device: str, shown: Pictures) -> Found:
    def scored(where: str, dtype: str) -> list[float]:
        judge = calm(Runtime(device=where, dtype=dtype))  # type: ignore[arg-type]
        return [score.regression for score in judge.score(list(shown.images), batch_size=BATCH)]

    expected = scored("cpu", "float32")
    values: dict[str, Any] = {"cpu": expected}
    checks = []
    for dtype, limit in POINTS.items():
        values[dtype] = scored(device, dtype)
        worst = max(abs(one - other) for one, other in zip(values[dtype], expected, strict=True))
        checks.append(Check(f"{dtype} scores, points", worst, limit))
    return Found(values, checks)
