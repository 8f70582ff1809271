"""OASIS: 900 photographs with norms of valence and arousal, and single persons' ratings of their beauty.

    data:
      datasets:
        oasis: {root: /photos/oasis, comments: 3, test_raters: 0.25}

Two layouts are read. The authors' own: OASIS.csv with photographs called by their theme, beside corrData.mat (raters by
photographs) or a table rater, item, beauty of the OASIS-beauty repository; without either, its means per photograph
serve as scores. And a part of it: items.csv, ratings.csv and images/I###.jpg.

There are no words about these photographs. Captions come from the themes; comments are composed from the mean ratings:
they say how a photograph compares with the rest of its set in beauty, valence and arousal and what its theme is, and
nothing else. Light or composition, which nobody rated, are not spoken of. The same seed and names give the same words.
Both are called synthetic in `origin`.

Raters drawn by seed are kept for testing personalised scoring: no crowd's score, and so no comment, knows what they
gave. Photographs of one theme ("Acorns 1", "Acorns 2") are a group: they never straddle a split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from ruamel.yaml import YAML

from calm.data import SourceError
from calm.data.reading.base import Photograph, comment_row
from calm.data.reading.cells import numbers, read_cells, refuse, refuse_doubles, require, stems
from calm.data.reading.folder import ROOT_VARIABLE, FolderSettings, FolderSource
from calm.params import Params
from calm.seeds import derive, stream
from calm.settings import ParamsError, PositiveInt

Measure = Literal["beauty", "valence", "arousal"]

_WORDS: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_name("impressions.yaml").read_text(encoding="utf-8"))
# By measure, from the lowest band of the set to the highest.
CLAUSES: Mapping[Measure, Sequence[Sequence[str]]] = _WORDS["clauses"]
_NUMBER = re.compile(r"\s*\d+\s*$")
SCALE = (1, 7)
_PART = "items.csv"
_RATINGS = ("ratings.csv", "**/ratings_long*.csv", "**/corrData*.mat")
_MEANS = ("**/*means_per_image*.csv",)


def theme_name(theme: str) -> str:
    """A theme without its number: "Acorns 1" -> "Acorns", also where written "Acorns1"."""
    return " ".join(_NUMBER.sub("", theme).split())


def subject(theme: str) -> str:
    """A theme as a noun phrase with its article: "Bar 2" -> "a bar", "Acorns 1" -> "acorns"."""
    words = theme_name(theme).lower()
    if words in _WORDS["special"]:
        return _WORDS["special"][words]
    last = words.split(" ")[-1]
    plural = last.endswith("s") and not last.endswith("ss")
    doing = last.endswith("ing") and last not in _WORDS["counted_ing"]
    if plural or doing or last in _WORDS["uncounted"]:
        return words
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def theme_captions(theme: str, category: str) -> list[str]:
    """What a photograph shows, from its theme and the category of its set: "Acorns, category object."."""
    shown = subject(theme)
    return [f"A photograph of {shown}.", f"{shown[0].upper()}{shown[1:]}, category {category.lower()}."]


def bands(values: pd.Series, count: int) -> NDArray[np.int64]:
    """Which of `count` equal parts of the set each value falls in, 0 the lowest; equal values share a part.

    The set is all of `values`, so bands are relative to it and do not depend on the order of its rows.
    """
    rank = values.rank(method="average", pct=True).to_numpy() - 0.5 / len(values)
    return np.clip(np.floor(rank * count), 0, count - 1).astype(np.int64)


def all_bands(means: pd.DataFrame) -> dict[str, dict[Measure, int]]:
    """The band of every item in every measure; `means` has columns item_id, beauty, valence, arousal."""
    found = {measure: bands(means[measure], len(words)) for measure, words in CLAUSES.items()}
    return {
        item_id: {measure: int(found[measure][row]) for measure in CLAUSES}
        for row, item_id in enumerate(means["item_id"])
    }


def composed_comments(shown: str, band: Mapping[Measure, int], count: int, rng: np.random.Generator) -> list[str]:
    """Comments on one photograph, one to three sentences each; those that follow one another open differently.

    Args:
        shown: the subject with its article.
        band: per measure, as `all_bands` gives.
    """
    openers = [_WORDS["openers"][int(index)] for index in rng.permutation(len(_WORDS["openers"]))]
    return [_comment(openers[number % len(openers)], shown, band, rng) for number in range(count)]


def _comment(opener: str, shown: str, band: Mapping[Measure, int], rng: np.random.Generator) -> str:
    """Beauty with the subject, then of mood and how much it stirs none, one or both."""
    clause = {measure: _pick(CLAUSES[measure][level], rng) for measure, level in band.items()}
    opening = opener.format(kind=_pick(_WORDS["kinds"], rng), subject=shown, beauty=clause["beauty"])
    rest = [clause["valence"], clause["arousal"]]
    chosen = [rest[int(index)] for index in rng.permutation(2)[: int(rng.integers(3))]]
    if not chosen:
        return f"{opening}."
    if len(chosen) == 1:
        return f"{opening}. {_sentence(chosen[0])}."
    first, second = chosen
    closing = _pick(_WORDS["closings"], rng)
    return f"{opening}. {closing.format(first=first, second=second, First=_sentence(first), Second=_sentence(second))}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


class OasisSettings(FolderSettings):
    """params.data.datasets.oasis."""

    comments: PositiveInt = 3  # synthetic comments for each photograph
    test_raters: Annotated[float, Field(ge=0, lt=1)] = 0.25  # share of the raters, for personalised scoring alone


class Oasis(FolderSource, about=__file__):
    """Photographs of objects, scenes, animals and persons, rated for beauty by persons."""

    settings_type = OasisSettings
    settings: OasisSettings

    def agree(self, params: Params) -> None:
        """Raters whom no score knows must be those that the stage `split` holds out."""
        ours, theirs = self.settings.test_raters, params.data.split.raters.test_share
        if self.name in params.data.roles.raters and ours != theirs:
            raise ParamsError(
                f"data.datasets.{self.name}.test_raters ({ours}) and data.split.raters.test_share ({theirs}) must be "
                "equal: no crowd's score may know what a held-out rater gave"
            )

    def _named(self) -> Path | None:
        """As other folders; $CALM_DATA may also be the dataset itself."""
        common = os.environ.get(ROOT_VARIABLE)
        named = super()._named()
        if named is None and common and (Path(common).expanduser() / _PART).is_file():
            return Path(common).expanduser()
        return named

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every photograph that the labels speak of, in their order.

        Returns:
            Columns item_id ("I001"), theme ("Acorns 1"), category, name (of the file, or its stem), valence, arousal
            (means, 1..7).

        Raises:
            SourceError: a table is missing or wrong; the message names file, row and column.
        """
        part = self.maybe(_PART)
        path = part or self.find("**/OASIS.csv")
        cells = read_cells(path)
        names = ("file", "theme", "category") if part else ("Unnamed: 0", "Theme", "Category")
        means = ("valence_mean", "arousal_mean") if part else ("Valence_mean", "Arousal_mean")
        require(cells, names, path)
        frame = cells[list(names)].set_axis(["name", "theme", "category"], axis=1)
        frame[["valence", "arousal"]] = numbers(cells, means, path, *SCALE)
        frame.insert(0, "item_id", item_ids(cells, names[0], path))
        refuse_doubles(frame["item_id"], names[0], path)
        if part is None:
            there = {_joined(ref.stem): ref.name for ref in self.images}
            frame["name"] = [there.get(_joined(theme), theme) for theme in frame["theme"]]
        return frame.reset_index(drop=True)

    @cached_property
    def single(self) -> pd.DataFrame:
        """Single persons' ratings: columns rater_id, item_id, score (1..7); empty where only means are published."""
        path = self.maybe(*_RATINGS)
        if path is None:
            return pd.DataFrame({"rater_id": [], "item_id": [], "score": []}).astype({"score": float})
        known = set(self.table["item_id"])
        frame = _matrix(path, known) if path.suffix == ".mat" else _long(path, known)
        return frame.reset_index(drop=True)

    @cached_property
    def test_raters(self) -> frozenset[str]:
        """Raters kept for testing personalised scoring, drawn by seed."""
        raters = sorted(set(self.single["rater_id"]))
        order = sorted(raters, key=lambda rater: (derive(self.seed, "raters", self.name, rater), rater))
        return frozenset(order[: round(self.settings.test_raters * len(order))])

    @cached_property
    def crowd(self) -> pd.DataFrame:
        """Scores of the crowd without the test raters: columns item_id, score, votes, n, in the order of ids.

        Raises:
            SourceError: there are neither single ratings nor means.
        """
        kept = self.single[~self.single["rater_id"].isin(self.test_raters)]
        if kept.empty:
            return self._published_means()
        steps = range(SCALE[0], SCALE[1] + 1)
        votes = pd.crosstab(kept["item_id"], kept["score"]).reindex(columns=list(steps), fill_value=0).sort_index()
        counts = votes.to_numpy()
        return pd.DataFrame(
            {
                "item_id": votes.index,
                "score": (counts * np.array(steps)).sum(axis=1) / counts.sum(axis=1),
                "votes": counts.tolist(),
                "n": counts.sum(axis=1),
            }
        )

    def _published_means(self) -> pd.DataFrame:
        """The means that the authors give, where they are all there is."""
        path = self.find(*_MEANS) if self.maybe(_PART) is None else self.find(_PART)
        cells = read_cells(path)
        found = numbers(cells, ["beauty_mean"], path, *SCALE)[:, 0]
        count = numbers(cells, ["beauty_n" if path.name == _PART else "N"], path, low=1, whole=True)[:, 0]
        frame = pd.DataFrame({"item_id": item_ids(cells, "item", path), "score": found, "n": count})
        refuse_doubles(frame["item_id"], "item", path)
        return frame.assign(votes=None).sort_values("item_id", ignore_index=True)

    def labels(self) -> Iterable[Path]:
        """The table of photographs, and the ratings or means."""
        _ = self.crowd, self.table  # a table that cannot be read is an error before anything is hashed
        part, ratings = self.maybe(_PART), self.maybe(*_RATINGS)
        found = (part or self.find("**/OASIS.csv"), ratings, None if part or ratings else self.find(*_MEANS))
        return [path for path in found if path is not None]

    def wanted(self) -> Mapping[str, str]:
        """Item id -> photograph, in the order of the table."""
        return dict(zip(self.table["item_id"], self.table["name"], strict=True))

    def photographs(self) -> Iterator[Photograph]:
        """The photographs that are there, those of one theme as a group."""
        for item_id, name, theme in self.table[["item_id", "name", "theme"]].itertuples(index=False):
            ref = self.images.get(name)
            if ref is not None:
                yield self.photograph(item_id, ref, group=theme_name(theme).lower())

    def ratings(self, items: pd.DataFrame) -> pd.DataFrame:
        """Every single rating, and the crowd's: its mean, votes and size without the test raters."""
        told = pd.concat([self.single, self.crowd], ignore_index=True)
        told = told.assign(score_min=float(SCALE[0]), score_max=float(SCALE[1]), origin="human")
        return told[told["item_id"].isin(items["item_id"])].reset_index(drop=True)

    def comments(self, items: pd.DataFrame) -> list[dict[str, Any]]:
        """Captions from the themes; synthetic comments from the means, relative to the whole set."""
        means = self.table.merge(self.crowd[["item_id", "score"]], on="item_id").rename(columns={"score": "beauty"})
        bands = all_bands(means)
        wanted = set(items["item_id"])
        rows: list[dict[str, Any]] = []
        for item_id, theme, category in self.table[["item_id", "theme", "category"]].itertuples(index=False):
            if item_id not in wanted:
                continue
            for number, text in enumerate(theme_captions(theme, category)):
                rows.append(comment_row(item_id, f"caption{number}", text, "caption", "theme"))
            if item_id in bands:
                rng = stream(self.seed, self.name, "comment", item_id)
                shown = subject(theme)
                for number, text in enumerate(composed_comments(shown, bands[item_id], self.settings.comments, rng)):
                    rows.append(comment_row(item_id, f"c{number}", text, None, "synthetic_ratings"))
        return rows


def item_ids(cells: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """Ids of photographs from their numbers: "1", "I1" and "images/I001.jpg" are all "I001".

    Raises:
        SourceError: something else.
    """
    require(cells, [column], path)
    found = stems(cells[column]).str.extract(r"^[Ii]?0*([1-9][0-9]*)$", expand=False)
    refuse(cells, found.isna(), column, path, "is no number of a photograph, such as I001")
    return "I" + found.str.zfill(3)


def _long(path: Path, known: Set[str]) -> pd.DataFrame:
    """Single ratings from a table rater, item, beauty."""
    cells = read_cells(path)
    require(cells, ["rater"], path)
    frame = pd.DataFrame({"rater_id": cells["rater"], "item_id": item_ids(cells, "item", path)})
    frame["score"] = numbers(cells, ["beauty"], path, *SCALE, whole=True)[:, 0].astype(float)
    for column, wrong, what in (
        ("rater", frame["rater_id"] == "", "names nobody"),
        ("item", ~frame["item_id"].isin(known), "is no photograph of the set"),
        ("item", frame.duplicated(["rater_id", "item_id"]), "was rated by this rater already"),
    ):
        refuse(cells, wrong, column, path, what)
    return frame


def _matrix(path: Path, known: Set[str]) -> pd.DataFrame:
    """Single ratings from corrData.mat: raters (called R001, R002, ...) by photographs, NaN where none was given."""
    from scipy.io import loadmat

    try:
        values = np.asarray(loadmat(path, variable_names=["corrData"])["corrData"], dtype=float)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise SourceError(f"{path}: no matrix 'corrData' that can be read ({error})") from None
    raters, items = np.nonzero(np.isfinite(values))
    scores = values[raters, items]
    frame = pd.DataFrame(
        {
            "rater_id": [f"R{number + 1:03d}" for number in raters],
            "item_id": [f"I{number + 1:03d}" for number in items],
            "score": scores,
        }
    )
    allowed = np.isin(scores, range(SCALE[0], SCALE[1] + 1))
    wrong = ~(allowed & frame["item_id"].isin(known).to_numpy())
    if wrong.any():
        first = int(wrong.argmax())
        what = f"column {items[first] + 1} is no photograph of the set" if allowed[first] else "no whole number in 1..7"
        raise SourceError(
            f"{path}, corrData row {raters[first] + 1}, column {items[first] + 1}: {scores[first]:g}: {what}"
        )
    return frame


def _joined(theme: str) -> str:
    """A theme for comparing: "Acorns 1", "acorns1" and "Crosswalk 1 " occur for one."""
    return "".join(theme.split()).casefold()


SOURCE = Oasis
