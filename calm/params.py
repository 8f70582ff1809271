"""Everything that params.yaml may say, put together from the rooms' sections and checked before anything runs.

An unknown key, a value of the wrong type or range, and a key that could have no effect beside the others are all
`ParamsError`s that name the key by its dotted path. Settings that exist only in one variant (LoRA's rank, the texts
API's model) belong to a tagged union, so naming them beside another variant is an error and not a silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from calm.data.settings import DataParams, InstructionParams
from calm.evaluation.settings import EvaluationParams, ReportParams
from calm.model.settings import MFAMParams, Parts, Runtime
from calm.settings import NonNegativeInt, ParamsError, Section, checked
from calm.training.settings import TRAINING_RUNS, Ablation, CrossValidation, FinetuneParams, PretrainParams, Strategy
from calm.writing.settings import AttributeParams

PARAMS_FILE = Path("params.yaml")
Threads = Annotated[int, Field(ge=1, le=1024)]


class StageThreads(Section):
    """Threads of each stage: part of the result, since sums of floats depend on them."""

    fetch: Threads
    prepare: Threads
    split: Threads
    filter_leakage: Threads
    generate_texts: Threads
    build_instructions: Threads
    pretrain: Threads
    finetune: Threads
    evaluate: Threads
    ablate: Threads
    cross_validate: Threads
    report: Threads


class Params(Section):
    """Everything params.yaml says."""

    profile: str
    seed: NonNegativeInt
    runtime: Runtime
    threads: StageThreads
    parts: Parts
    data: DataParams
    attributes: AttributeParams
    instructions: InstructionParams
    mfam: MFAMParams
    pretrain: PretrainParams
    finetune: FinetuneParams
    strategy: Strategy
    evaluation: EvaluationParams
    ablations: dict[str, Ablation]
    cross_validations: dict[str, CrossValidation]
    report: ReportParams

    def changed(self, change: Mapping[str, object], where: str) -> Params:
        """A copy with other values at these dotted keys; `where` names their origin in errors.

        Raises:
            ParamsError: there is no such key, or `Params` refuses the value.
        """
        raw = self.model_dump()
        for dotted, value in change.items():
            *sections, key = dotted.split(".")
            section: object = raw
            for name in sections:
                section = section.get(name) if isinstance(section, dict) else None
            if not isinstance(section, dict) or key not in section:
                raise ParamsError(f"{where}: '{dotted}' is not a key of params.yaml")
            section[key] = value
        return parse_params(raw, where)

    @model_validator(mode="after")
    def _cross_validations_have_a_visual_phase(self) -> Params:
        if self.cross_validations and not self.finetune.scores.visual.steps:
            raise ValueError("cross_validations train the visual part of the score: finetune.scores.visual.steps is 0")
        return self

    @model_validator(mode="after")
    def _visual_scores_have_a_head(self) -> Params:
        width, steps = self.mfam.score_width, self.finetune.scores.visual.steps
        if steps and not width:
            raise ValueError(
                f"finetune.scores.visual.steps ({steps}) would train a part of the score head that "
                "mfam.score_width = 0 leaves out: set it to 0 too"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_something_to_read(self) -> Params:
        if self.strategy.workers and self.runtime.keep_features and self.pretrain.attributes.views:
            raise ValueError(
                "strategy.workers has no effect: runtime.keep_features and pretrain.attributes.views keep all in memory"
            )
        return self

    @model_validator(mode="after")
    def _processes_share_every_batch(self) -> Params:
        for section, run in TRAINING_RUNS:
            batch = getattr(getattr(self, section), run).batch_size
            if batch % self.strategy.world:
                raise ValueError(
                    f"{section}.{run}.batch_size ({batch}) cannot be shared evenly by the {self.strategy.world} "
                    "processes of strategy.nodes x strategy.processes"
                )
        return self


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: the file is missing, is not YAML, or says something that `Params` refuses.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist: run this in a checkout of calm, or name one with -C DIR") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    return parse_params(raw, str(path))


def parse_params(raw: object, where: str) -> Params:
    """Check parameters that were already read; `where` names their origin in errors."""
    if not isinstance(raw, Mapping):
        raise ParamsError(f"{where}: expected a mapping of sections, found {type(raw).__name__}")
    return checked(Params, raw, where)
