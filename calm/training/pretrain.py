"""Stage `pretrain`: the MFAM alone, all else frozen (paper). U trains the Q-formers, G the fully connected layer.

U is text-guided self-supervision on unlabelled photographs. A photograph is edited in known ways, at most one attribute
a level, and its Q-formers learn to agree with the guidance texts of what was done. Losses are files of
`calm/training/losses`, each with its weight in params.yaml (chosen here: docs/paper.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch

from calm.attributes import LEVELS
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.data.store import tables
from calm.data.store.tables import GUIDANCE
from calm.io import atomic_dir, read_table, sha256_file
from calm.layout import Layout
from calm.model.attention import use_plain_attention
from calm.model.build import Assembly, assemble, save_trained
from calm.model.heads import Calibration, fit
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.pretrained import TextEncoder, load_text_encoder
from calm.params import Params
from calm.seeds import stream
from calm.training.features import ENCODED_AT_ONCE, SKIPPED, Features, Key, Photographs, View, Views
from calm.training.loop.engine import Objective, Run, finish, train, write_curve
from calm.training.loop.order import WHOLE, Order, Part, Visit
from calm.training.loop.processes import launch
from calm.training.losses import Known, Loss, Step, TextBank, contrastive, further_loss, language, stands
from calm.training.settings import LossSettings, Optimisation, PretrainAttributes
from calm.training.tuning import InstructionObjective

RUNS = ("attributes", "alignment")
ALIGNED = ("thematic.", "content.")  # the MFAM's fully connected layers
KNOWN_STATES = ("prototypes", "words")  # constants of the run that learns the attribute states
CONTENT_PHOTOGRAPHS = 2048  # whose features say what is usual


def state_table(known: Taxonomy) -> list[tuple[str, str, str]]:
    """(level, attribute, state) of every state, in the taxonomy's order: the rows of the prototypes."""
    return [(a.level, a.name, state.name) for a in known.attributes for state in a.all_states]


def log_priors(known: Taxonomy) -> torch.Tensor:
    """(S,) log of how often `draw_view` leaves an attribute in each of its states, in the table's order."""
    found = []
    for attribute in known.attributes:
        of_state = (1 - SKIPPED) / len(known.at(attribute.level)) / len(attribute.all_states)
        found += [1 - of_state * len(attribute.states), *[of_state] * len(attribute.states)]
    return torch.tensor(found).log()


class AttributeObjective:
    """The loss of every step, and the parameters it trains: Q-formers, their projections, the contrastive head."""

    def __init__(
        self,
        assembly: Assembly,
        bank: TextBank,
        encoder: TextEncoder,
        photographs: Photographs,
        keys: Sequence[Key],
        options: PretrainAttributes,
        seed: int,
    ) -> None:
        self.assembly, self.model, self.seed = assembly, assembly.model, seed
        self.views = Views(assembly, photographs, sorted(keys), seed, options.views)
        self.order = Order(len(keys), options.batch_size, seed, "pretrain-attributes")
        table = state_table(taxonomy())
        embedded = {row[1:]: encoder.embed(bank.texts(*row[1:])) for row in table}
        self.known = Known(assembly, bank, table, log_priors(taxonomy()), embedded)
        every: list[tuple[Loss[Any], LossSettings]] = [
            (contrastive.LOSS, options.contrastive),
            (language.LOSS, options.language),
        ]
        every += [further_loss(name, raw) for name, raw in options.losses.items()]
        self.weighed = [(loss, settings) for loss, settings in every if settings.weight]
        mfam = assembly.model.mfam
        with torch.no_grad():
            mfam.prototypes.copy_(torch.stack([embedded[row[1:]].mean(0) for row in table]))
        self.parameters = {
            f"mfam.{name}": parameter
            for name, parameter in mfam.named_parameters()
            if name.startswith(("levels.", "text_to_contrast.", "temperature"))
        }

    def read(self, step: int, part: Part) -> tuple[list[View], torch.Tensor | None]:
        """What is done to every photograph of a step, and the edited photographs of a part."""
        visits = self.order.visits(step)
        return self.views.drawn(visits), self.views.pixels(visits[part.slice(len(visits))])

    def losses(
        self, step: int, part: Part = WHOLE, read: tuple[list[View], torch.Tensor | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """What a part of a step's edited views contributes to each loss, and to all of them weighted."""
        visits = self.order.visits(step)
        own = part.slice(len(visits))
        views, pixels = read or self.read(step, part)
        tokens = self.views.encoded(visits[own], pixels)
        states = {level: self.assembly.model.mfam.level(level)(tokens[level]) for level in LEVELS}
        shown = Step(views, own, states, stream(self.seed, "pretrain-attributes", step))
        losses: dict[str, torch.Tensor] = {}
        total = torch.zeros(())
        for loss, settings in self.weighed:
            parts = loss.compute(self.known, settings, shown)
            total = total + settings.weight * torch.stack(list(parts.values())).mean()
            losses |= parts
        return {"loss": total, **losses}

    @torch.no_grad()
    def calibration(self, views: Views) -> Calibration:
        """How sure recognition may be, fitted on views of photographs that it was not learnt from."""
        visits = [Visit(photograph, n) for n in range(views.kept) for photograph in range(len(views.keys))]
        drawn = views.drawn(visits)
        similarities = torch.cat(
            [
                self.assembly.model.mfam.similarities(views.encoded(visits[start : start + ENCODED_AT_ONCE])).cpu()
                for start in range(0, len(visits), ENCODED_AT_ONCE)
            ]
        )
        states = torch.tensor([[stands(view, row) for row in self.known.table] for view in drawn])
        return fit(self.known.table, self.known.log_priors.tolist(), similarities, states)


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
    objective, held_out = attribute_objective(assembly, options, params, layout)
    inputs = [*_settings(params), sha256_file(layout.texts), objective.views.keys]
    constants = [f"mfam.{name}" for name, _ in assembly.model.mfam.named_buffers() if name in KNOWN_STATES]

    def calibrate() -> None:
        assembly.model.config.recognition = objective.calibration(held_out).to_config()

    _train("attributes", objective, options, inputs, params, layout, assembly.model, constants, calibrate)


def attribute_objective(
    assembly: Assembly, options: PretrainAttributes, params: Params, layout: Layout
) -> tuple[AttributeObjective, Views]:
    """The self-supervision of the unlabelled training photographs with the guidance texts, and views held out of it."""
    texts = read_table(layout.texts, GUIDANCE)
    encoder = load_text_encoder(params.parts.text)
    assembly.model.config.provenance["text"] = encoder.provenance.as_dict()
    rows = _training_rows(tables.role_list(layout, "unlabelled"))
    photographs = Photographs(layout, rows["dataset"])
    learnt, held_out = held_apart(_grouped(rows, layout), options.calibration.share, params.seed)
    objective = AttributeObjective(assembly, TextBank(texts), encoder, photographs, learnt, options, params.seed)
    return objective, Views(assembly, photographs, held_out, params.seed, options.calibration.views)


def _grouped(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Listed items with the group of near-duplicates that each belongs to."""
    known = pd.concat([tables.items(layout, dataset) for dataset in sorted(set(rows["dataset"]))])
    return rows.merge(known[["dataset", "item_id", "group"]], on=["dataset", "item_id"], validate="one_to_one")


def held_apart(rows: pd.DataFrame, share: float, seed: int) -> tuple[list[Key], list[Key]]:
    """Photographs to learn from and photographs held out: about `share` of them, in whole groups drawn by seed.

    Raises:
        ValueError: all photographs are of one group, so that none could be held out.
    """
    groups = {group: list(part.index) for group, part in rows.groupby(["dataset", "group"], sort=True)}
    if len(groups) < 2:
        raise ValueError("pretrain.attributes.calibration: all photographs are near-duplicates of one another")
    names = list(groups)
    out: list[int] = []
    for number in stream(seed, "calibration").permutation(len(names))[:-1]:
        if len(out) >= share * len(rows):
            break
        out += groups[names[number]]
    keys = list(zip(rows["dataset"], rows["item_id"], strict=True))
    apart = set(out)
    return [key for i, key in enumerate(keys) if i not in apart], [keys[i] for i in sorted(apart)]


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
    constants = [f"mfam.{name}" for name, _ in mfam.named_buffers() if name not in KNOWN_STATES]
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
    afterwards: Callable[[], None] = lambda: None,
) -> None:
    """Train the objective's parameters and save them, with tensors that were computed beside them.

    Args:
        afterwards: called before the checkpoint is written.
    """
    settings = Run(f"pretrain {run}", options, params.strategy, params.seed, layout.state(f"pretrain-{run}"), inputs)
    for parameter in objective.parameters.values():
        parameter.requires_grad_(True)
    curve = train(objective, settings)
    if curve is None:  # the process that started this one writes the outputs
        return
    afterwards()
    with atomic_dir(layout.pretrained(run)) as folder:
        save_trained(folder, model, [*objective.parameters, *constants])
    write_curve(layout.curve(f"pretrain-{run}"), curve)
    finish(settings)


def _settings(params: Params) -> list[object]:
    """Sections beside the run's own that decide its result."""
    return [params.parts.model_dump(), params.mfam.model_dump(), params.runtime.model_dump()]


def _training_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"] == "train"].reset_index(drop=True)
