"""FLICKR-AES: photographs from Flickr, each rated 1 to 5 by about five of 210 workers.

No list of the test raters is published. Rule: they are the raters whose numbers of rated photographs lie in the range
that the literature gives for the 37 (`fewest_ratings`..`most_ratings`); every photograph that one of them rated is a
test one. What other raters said of test photographs is used nowhere, so that raters and photographs of the two splits
are disjoint. The counts of this rule are compared with the published ones and not forced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field, model_validator

from calm.data.reading.cells import BLANKS, ids, numbers, read_cells, refuse, refuse_doubles, require
from calm.data.reading.folder import FolderSettings, FolderSource

RATINGS = "FLICKR-AES_image_labeled_by_each_worker.csv"
SCORES = "FLICKR-AES_image_score.txt"


class FlickrAesSettings(FolderSettings):
    """params.data.datasets.flickr_aes."""

    fewest_ratings: Annotated[int, Field(ge=1)] = 105  # of a test rater
    most_ratings: Annotated[int, Field(ge=1)] = 171

    @model_validator(mode="after")
    def _is_a_range(self) -> FlickrAesSettings:
        if self.fewest_ratings > self.most_ratings:
            raise ValueError("data.datasets.flickr_aes: fewest_ratings is greater than most_ratings")
        return self


class FlickrAes(FolderSource, about=__file__):
    """FLICKR-AES with raters and photographs held out."""

    settings_type = FlickrAesSettings
    settings: FlickrAesSettings

    def labels(self) -> Iterable[Path]:
        return [self.find(f"**/{RATINGS}"), self.find(f"**/{SCORES}")]

    @cached_property
    def personal(self) -> pd.DataFrame:
        """Columns item_id, rater_id, score (1..5), ordered by them."""
        return read_ratings(self.find(f"**/{RATINGS}"))

    @cached_property
    def crowd(self) -> pd.Series:
        """Weighted mean score (0..1) by item id."""
        return read_scores(self.find(f"**/{SCORES}"))

    @cached_property
    def test_raters(self) -> frozenset[str]:
        """The raters held out."""
        rated = self.personal["rater_id"].value_counts()
        return frozenset(rated.index[rated.between(self.settings.fewest_ratings, self.settings.most_ratings)])

    @cached_property
    def test_items(self) -> frozenset[str]:
        """The photographs that a test rater rated."""
        return frozenset(self.personal.loc[self.personal["rater_id"].isin(self.test_raters), "item_id"])

    @cached_property
    def usable(self) -> pd.DataFrame:
        """As `personal` without what training raters said of test photographs."""
        ours = self.personal["rater_id"].isin(self.test_raters)
        return self.personal[ours | ~self.personal["item_id"].isin(self.test_items)]

    def wanted(self) -> Mapping[str, str]:
        return {item_id: item_id for item_id in sorted({*self.personal["item_id"], *self.crowd.index})}

    def splits(self) -> Mapping[str, tuple[str, str]]:
        settings = self.settings
        rule = (
            f"FLICKR-AES photographs of the {len(self.test_raters)} raters with {settings.fewest_ratings} to "
            f"{settings.most_ratings} ratings"
        )
        return {item_id: ("test" if item_id in self.test_items else "train", rule) for item_id in self.wanted()}

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """The published mean of every photograph, and single raters' scores of their own split."""
        crowd = pd.DataFrame({"item_id": self.crowd.index, "rater_id": None, "score": self.crowd.to_numpy()})
        rows = pd.concat(
            [crowd.assign(score_min=0.0, score_max=1.0), self.usable.assign(score_min=1.0, score_max=5.0)],
            ignore_index=True,
        )
        return rows[rows["item_id"].isin(items["item_id"])].assign(origin="human")

    def counts(self) -> dict[str, int]:
        """And raters by split, and ratings that are used nowhere."""
        raters = self.personal["rater_id"].nunique()
        return {
            **super().counts(),
            "raters": raters,
            "train_raters": raters - len(self.test_raters),
            "test_raters": len(self.test_raters),
            "ratings_left_out": len(self.personal) - len(self.usable),
        }


def read_ratings(path: Path) -> pd.DataFrame:
    """The csv of single ratings: `worker, imagePair, score`, with stray blanks; columns item_id, rater_id, score.

    Where a worker rated a photograph more than once, the mean is taken.

    Raises:
        SourceError: a cell is missing or no score from 1 to 5.
    """
    cells = read_cells(path)
    require(cells, ["worker", "imagePair", "score"], path)
    refuse(cells, cells["worker"] == "", "worker", path, "names nobody")
    score = numbers(cells, ["score"], path, 1, 5)[:, 0]
    frame = pd.DataFrame({"item_id": ids(cells, "imagePair", path), "rater_id": cells["worker"], "score": score})
    return frame.groupby(["item_id", "rater_id"], sort=True)["score"].mean().reset_index()


def read_scores(path: Path) -> pd.Series:
    """The text of weighted means, `name score`, some lines with a leading blank; by item id, ordered.

    Raises:
        SourceError: a cell is no score from 0 to 1, or a photograph is there twice.
    """
    cells = read_cells(path, BLANKS, ["image", "score"])
    names = ids(cells, "image", path)
    refuse_doubles(names, "image", path)
    score = numbers(cells, ["score"], path, 0, 1)[:, 0]
    return pd.Series(score, index=pd.Index(names.to_numpy(object), name="item_id"), name="score").sort_index()


SOURCE = FlickrAes
