"""Stage `pretrain`: the MFAM alone, all else frozen (paper). U trains the Q-formers, G the fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from calm.attributes.taxonomy import taxonomy
from calm.attributes.texts import TextBank
from calm.data import tables
from calm.data.schema import GUIDANCE
from calm.io import atomic_dir, read_table, sha256_file
from calm.layout import Layout
from calm.model.build import Assembly, assemble, save_trained, use_plain_attention
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.pretrained import load_text_encoder
from calm.params import Optimisation, Params, PretrainAttributes
from calm.seeds import stream
from calm.training.attributes import AttributeObjective, state_table
from calm.training.engine import Objective, Run, finish, train, write_curve
from calm.training.features import Features, Photographs
from calm.training.launch import launch
from calm.training.tuning import InstructionObjective

RUNS = ("attributes", "alignment")
ALIGNED = ("thematic.", "content.")  # the MFAM's fully connected layers
CONTENT_PHOTOGRAPHS = 2048  # whose features say what is usual


def pretrain(run: str, params: Params, layout: Layout) -> None:
    """Train one of the two pre-training runs and write its checkpoint and curve.

    Raises:
        ValueError: there is no such run.
    """
    launch("pretrain", {"run": run}, params, layout, layout.state(f"pretrain-{run}"))
    match run:
        case "attributes":
            _pretrain_attributes(params, layout)
        case "alignment":
            _pretrain_alignment(params, layout)
        case _:
            raise ValueError(f"there is no pre-training run '{run}'; there are: {', '.join(RUNS)}")


def _pretrain_attributes(params: Params, layout: Layout) -> None:
    assembly = assemble(params, state_table(taxonomy()))
    use_plain_attention(assembly.model)
    options = params.pretrain.attributes
    objective = attribute_objective(assembly, options, params, layout)
    inputs = [*_settings(params), sha256_file(layout.texts), objective.views.keys]
    _train("attributes", objective, options, inputs, params, layout, assembly.model, ["mfam.prototypes"])


def attribute_objective(
    assembly: Assembly, options: PretrainAttributes, params: Params, layout: Layout
) -> AttributeObjective:
    """The self-supervision of the unlabelled training photographs with the guidance texts."""
    texts = read_table(layout.texts, GUIDANCE)
    encoder = load_text_encoder(params.parts.text)
    assembly.model.config.provenance["text"] = encoder.provenance.as_dict()
    rows = _training_rows(tables.role_list(layout, "unlabelled"))
    photographs = Photographs(layout, rows["dataset"])
    keys = list(zip(rows["dataset"], rows["item_id"], strict=True))
    return AttributeObjective(assembly, TextBank(texts), encoder, photographs, keys, options, params.seed)


def _pretrain_alignment(params: Params, layout: Layout) -> None:
    rows = _training_rows(tables.instructions(layout, "generic"))
    assembly = assemble(params)
    use_plain_attention(assembly.model)
    mfam = assembly.model.mfam
    features = Features.of(assembly, rows["dataset"], params.runtime, layout)
    named = zip(rows["dataset"], rows["item_ids"], strict=True)
    shown = sorted({(dataset, item_id) for dataset, item_ids in named for item_id in item_ids})
    drawn = stream(params.seed, "content").permutation(len(shown))[:CONTENT_PHOTOGRAPHS]
    mfam.fit_content(features([shown[number] for number in sorted(drawn)]))
    parameters = {f"mfam.{name}": p for name, p in mfam.named_parameters() if name.startswith(ALIGNED)}
    options = params.pretrain.alignment
    objective = InstructionObjective(assembly, features, rows, parameters, options, params.seed, "pretrain-alignment")
    inputs = [*_settings(params), sha256_file(layout.instructions / "generic.parquet")]
    constants = [f"mfam.{name}" for name, _ in mfam.named_buffers() if name != "prototypes"]
    _train("alignment", objective, options, inputs, params, layout, assembly.model, constants)


def _train(
    run: str,
    objective: Objective,
    options: Optimisation,
    inputs: Sequence[object],
    params: Params,
    layout: Layout,
    model: CalmForConditionalGeneration,
    constants: list[str],
) -> None:
    """Train the objective's parameters and save them, with tensors that were computed beside them."""
    settings = Run(f"pretrain {run}", options, params.strategy, params.seed, layout.state(f"pretrain-{run}"), inputs)
    for parameter in objective.parameters.values():
        parameter.requires_grad_(True)
    curve = train(objective, settings)
    if curve is None:  # the process that started this one writes the outputs
        return
    with atomic_dir(layout.pretrained(run)) as folder:
        save_trained(folder, model, [*objective.parameters, *constants])
    write_curve(layout.curve(f"pretrain-{run}"), curve)
    finish(settings)


def _settings(params: Params) -> list[object]:
    """Sections beside the run's own that decide its result."""
    return [params.parts.model_dump(), params.mfam.model_dump(), params.runtime.model_dump()]


def _training_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"] == "train"].reset_index(drop=True)
