"""A small prepared dataset of drawn pictures with known edits; stand-ins for the model: an oracle and a blind one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image

from calm.assistant.personal import Observed
from calm.attributes.edits import Edit, draw_edits, edited_copies, edits_to_json
from calm.attributes.grammar import comment
from calm.attributes.taxonomy import taxonomy
from calm.data.settings import RaterSplitParams
from calm.data.splits import draw_support
from calm.data.store import tables
from calm.data.store.images import encode
from calm.data.store.shards import ShardWriter
from calm.io import write_table
from calm.layout import Layout
from calm.params import Params, load_params
from calm.seeds import stream
from calm.training.settings import Ablation

REPOSITORY = Path(__file__).parents[2]
PHOTOS, VIEWS, TRAIN, RATERS, TEST_RATERS = 10, 3, 2, 8, 5
SHOTS = RaterSplitParams(test_share=0.5, shots=[5, 10], draws=3, least_queries=5)
DATASET = "drawn"


@dataclass(frozen=True)
class Score:
    text: float | None
    expectation: float
    regression: float
    raw: str
    distribution: tuple[float, ...] = (0.1,) * 10


@dataclass(frozen=True)
class Suggestion:
    attribute: str | None
    state: str | None
    text: str
    probability: float


@dataclass(frozen=True)
class Remedy:
    attribute: str
    state: str
    log_odds: float


@dataclass
class World:
    """The checkout below `layout.root`, and the truth about each picture by the hash of its pixels."""

    layout: Layout
    params: Params
    edits: dict[str, tuple[Edit, ...]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    def oracle(self) -> FakeCalm:
        return FakeCalm(self, knows=True)

    def blind(self) -> FakeCalm:
        return FakeCalm(self, knows=False)


def pixel_hash(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


@dataclass(frozen=True)
class FakeContext:
    """Half the generic score, half the mean of the support set's."""

    mean: float

    def score(self, tokens: torch.Tensor, batch_size: int = 16) -> tuple[np.ndarray, np.ndarray]:
        found = (tokens.flatten().numpy() + self.mean) / 2
        return found, found


class FakeCalm:
    """What `calm.assistant.Calm` offers. The oracle answers with the truth, the blind one by the hash of the pixels."""

    publics: ClassVar[list[str]] = []

    def __init__(self, world: World, *, knows: bool) -> None:
        self.world, self.knows = world, knows
        self.provenance: dict[str, Any] = {
            "parts": {"vision": {"name": "drawn-eye", "revision": "1", "sha256": "0" * 64}},
            "checkpoint_sha256": "f" * 64,
            "preprocessing": {"size": [64, 64], "mean": [0.5], "std": [0.5]},
        }

    def _rng(self, image: Image.Image) -> np.random.Generator:
        return stream(0, pixel_hash(image))

    def score(self, images: Sequence[Image.Image], batch_size: int = 16, public: str | None = None) -> list[Score]:
        if self.knows:
            values = [self.world.scores[pixel_hash(image)] for image in images]
        else:
            values = [float(self._rng(image).uniform(1, 10)) for image in images]
        return [Score(value, value, value, f"{value:.1f}.") for value in values]

    def comment(self, images: Sequence[Image.Image], batch_size: int = 16, max_new_tokens: int = 40) -> list[str]:
        if self.knows:
            return [self.world.comments[pixel_hash(image)] for image in images]
        return ["A fine picture with\n\x00nothing ||| to add." for _ in images]

    def suggest(self, images: Sequence[Image.Image], top: int = 3) -> list[list[Suggestion]]:
        told = [[one for one in states if one[2] >= 0.5][:top] for states in self.recognise(images)]
        return [[Suggestion(a, s, "...", p) for a, s, p in one] or [Suggestion(None, None, "-", 1.0)] for one in told]

    def recognise(self, images: Sequence[Image.Image]) -> list[list[tuple[str, str, float]]]:
        found = []
        for shares in self.attributes(images):
            changed = {a: {s: p for s, p in states.items() if s != "unchanged"} for a, states in shares.items()}
            best = [(a, max(states, key=states.__getitem__), max(states.values())) for a, states in changed.items()]
            found.append(sorted(best, key=lambda one: -one[2]))
        return found

    def rank_remedies(self, images: Sequence[Image.Image]) -> list[list[Remedy]]:
        return [self._ranked(image) for image in images]

    def _ranked(self, image: Image.Image) -> list[Remedy]:
        states = [(a, s) for a in taxonomy().attributes for s in a.states]
        order = self._rng(image).permutation(len(states))
        odds = {(states[i][0].name, states[i][1].name): -float(rank) for rank, i in enumerate(order)}
        if self.knows:
            odds |= {(edit.attribute, edit.state): 5.0 for edit in self._truth(image)}
        return [Remedy(*key, odds[key]) for key in sorted(odds, key=lambda key: (-odds[key], key))]

    def _truth(self, image: Image.Image) -> tuple[Edit, ...]:
        return self.world.edits.get(pixel_hash(image)) or image.info.get("edits", ())

    def attributes(self, images: Sequence[Image.Image]) -> list[dict[str, dict[str, float]]]:
        return [self._states(image) for image in images]

    def _states(self, image: Image.Image) -> dict[str, dict[str, float]]:
        rng, truth = self._rng(image), {edit.attribute: edit.state for edit in self._truth(image)}
        result = {}
        for attribute in taxonomy().attributes:
            names = [state.name for state in attribute.all_states]
            right = truth.get(attribute.name, "unchanged") if self.knows else str(rng.choice(names))
            result[attribute.name] = {name: 0.9 if name == right else 0.1 / (len(names) - 1) for name in names}
        return result

    def observe(self, images: Sequence[Image.Image], batch_size: int = 16) -> Observed:
        """The token of a photograph is its generic score."""
        generic = np.array([score.expectation for score in self.score(images)])
        features = self.pooled_features(images)
        return Observed(torch.tensor(generic).reshape(-1, 1, 1), features, features[:, ::-1].copy(), generic, generic)

    def in_context(self, support: torch.Tensor, scores: Sequence[float]) -> FakeContext:
        return FakeContext(float(np.mean(scores)))

    def attention(self, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        grid = np.arange(49, dtype=np.float32).reshape(1, 7, 7)
        return {level: np.repeat(grid / grid.sum(), len(images), axis=0) for level in ("low", "middle", "high")}

    def pooled_features(self, images: Sequence[Image.Image]) -> np.ndarray:
        if not self.knows:
            return np.stack([self._rng(image).normal(size=8) for image in images]).astype(np.float32)
        names = [attribute.name for attribute in taxonomy().attributes]
        edited = [{edit.attribute for edit in self._truth(image)} for image in images]
        return np.array([[float(name in attributes) for name in names] for attributes in edited], dtype=np.float32)


def small_params(root: Path = REPOSITORY) -> Params:
    """The repository's parameters, on the drawn dataset and with few resamples."""
    params = load_params(root / "params.yaml")
    roles = params.data.roles.model_copy(update={role: [DATASET] for role in type(params.data.roles).model_fields})
    params = with_settings(params, "attributes", before=None)
    params = with_settings(params, "personalised", support=[10], draws=2, in_context=[10])
    evaluation = params.evaluation.model_copy(
        update={"bootstrap": params.evaluation.bootstrap.model_copy(update={"samples": 200})}
    )
    data = params.data.model_copy(update={"datasets": {DATASET: {}}, "roles": roles})
    ablations = {"no_selfsupervision": Ablation(start="models/pretrain/alignment", tasks=["scoring"])}
    return params.model_copy(update={"data": data, "evaluation": evaluation, "ablations": ablations})


def with_settings(params: Params, task: str, **settings: Any) -> Params:
    """A copy in which the task has these settings too."""
    tasks = params.evaluation.tasks | {task: params.evaluation.tasks.get(task, {}) | settings}
    return params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"tasks": tasks})})


def rows(table: pa.Schema, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Records as a frame of a schema; columns that do not matter here get an empty value of their type."""
    empty: Callable[[pa.Field], Any] = lambda f: None if f.nullable else ("-" if f.type == pa.string() else 0)  # noqa: E731
    return pd.DataFrame({f.name: pd.Series([r.get(f.name, empty(f)) for r in records], dtype=object) for f in table})


def build_world(root: Path, *, photos: int = PHOTOS, views: int = VIEWS) -> World:
    """Draw pictures and their edited views, rate and comment on them, and write every table that evaluation reads."""
    world = World(Layout(root), small_params())
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in ("items", "ratings", "comments", "list")}
    folder = world.layout.prepared(DATASET)
    folder.mkdir(parents=True)
    writer = ShardWriter(folder)
    for number in range(photos):
        picture = draw_picture(number)
        for view in range(views + 1):
            rng = stream(number, "view", view)
            edits = draw_edits(rng, 1 + view % 2, taxonomy()) if view else ()
            image = edited_copies(picture, [edits])[0] if edits else picture
            _add(world, made, writer, number, view, image, edits)
    writer.close()
    write_table(folder / "items.parquet", rows(tables.ITEM, made["items"]), tables.ITEM)
    write_table(folder / "ratings.parquet", rows(tables.RATING, made["ratings"]), tables.RATING)
    write_table(folder / "comments.parquet", rows(tables.COMMENT, made["comments"]), tables.COMMENT)
    _write_raters(world, made)
    for role in ("generic", "comments", "scores", "raters"):
        write_table(world.layout.lists / f"{role}.parquet", rows(tables.LIST, made["list"]), tables.LIST)
    plain = [row for row in made["list"] if "#" not in row["item_id"]]
    write_table(world.layout.lists / "unlabelled.parquet", rows(tables.LIST, plain), tables.LIST)
    return world


def _write_raters(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    """Who is held out, and what is drawn of them."""
    names = sorted({str(row["rater_id"]) for row in made["ratings"] if "rater_id" in row})
    held_out = [{"dataset": DATASET, "rater_id": name, "rule": "the last ones"} for name in names]
    raters = pd.DataFrame(held_out)
    raters["split"] = ["test" if number >= len(names) - TEST_RATERS else "train" for number in range(len(names))]
    raters = raters[tables.RATER.names]
    items = pd.DataFrame(made["items"])[["item_id", "group"]]
    split = pd.DataFrame(made["list"])[["item_id", "split"]]
    single = pd.DataFrame([row for row in made["ratings"] if "rater_id" in row])[["item_id", "rater_id"]]
    single = single.merge(items, on="item_id").merge(split, on="item_id")
    drawn = draw_support(single.sort_values(["rater_id", "item_id"], ignore_index=True), raters, 0, SHOTS)
    write_table(world.layout.rater_splits / f"{DATASET}.parquet", raters, tables.RATER)
    write_table(world.layout.support_sets / f"{DATASET}.parquet", drawn, tables.SUPPORT)


def draw_picture(number: int) -> Image.Image:
    """Two gradients and a block, of another colour and place in each picture."""
    rng = stream(number, "picture")
    y, x = np.mgrid[0:72, 0:96] / 96
    planes = [rng.uniform(60, 140) + rng.uniform(-60, 60) * x + rng.uniform(-60, 60) * y for _ in range(3)]
    pixels = np.stack(planes, axis=-1)
    top, left = rng.integers(0, 40, size=2)
    pixels[top : top + 24, left : left + 24] = rng.uniform(0, 255, size=3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _add(
    world: World,
    made: dict[str, list[dict[str, Any]]],
    writer: ShardWriter,
    number: int,
    view: int,
    image: Image.Image,
    edits: tuple[Edit, ...],
) -> None:
    name = f"p{number:02d}" + (f"#v{view:02d}" if view else "")
    data = encode(image, 95)
    shard, row = writer.add(name, data)
    key = {"dataset": DATASET, "item_id": name}
    known = edits_to_json(edits) if edits else None
    place = {"shard": shard, "row": row, "width": image.width, "height": image.height}
    made["items"].append(key | place | {"group": f"g{number:02d}", "synthetic_edits": known})
    made["list"].append(key | {"split": "train" if number < TRAIN else "test"})
    rng = stream(number, "labels", view)
    score = round(9.0 - sum(1 + 2 * edit.severity for edit in edits) + float(rng.uniform(-0.2, 0.2)), 2)
    scale = {"score_min": 1.0, "score_max": 10.0}
    made["ratings"].append(key | scale | {"score": score, "origin": "synthetic_edits"})
    for rater in range(RATERS):
        liking = sum(float(stream(rater, "likes", edit.attribute).normal(0, 3)) for edit in edits)
        own = {"rater_id": f"r{rater}", "score": round(score + liking, 2), "origin": "synthetic_rater"}
        made["ratings"].append(key | scale | own)
    text = comment(edits, rng)
    caption = {"comment_id": "0", "text": "a block", "text_clean": "a block", "aspect": "caption", "origin": "theme"}
    told = {"comment_id": "1", "text": text, "text_clean": text, "origin": "synthetic_grammar"}
    made["comments"] += [key | caption, key | told]
    from calm.data.store.images import read_image

    stored = pixel_hash(read_image(data, max_pixels=10**6))
    world.edits[stored], world.scores[stored], world.comments[stored] = edits, score, text
