"""What the leakage filter finds on real photographs, and what it costs at the size of AVA, AVA-Captions and FLICKR-AES.

    python benchmarks/leakage.py [--photographs DIR ...] [--prepared photos ...] [--scales 0.1 1] [--write]

Rates: every photograph of the folders, and every one as photographed of the prepared datasets, is copied in several
ways; a copy is found if the filter's search takes it for its original. Pairs of different photographs show what is
wrongly taken for one.

Cost: tables are written straight in the layout of `prepare`, with random hashes and SYNTHETIC drawn pictures as planted
leaks of every kind; then the stages `split` and `filter_leakage` run in a process of their own. That all planted leaks
but crops are found, and that nothing leaks afterwards, is asserted before a time is printed. --write puts all into
docs/benchmarks/leakage.md.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from calm.data.leakage.near_duplicates import Looks, candidates, correlations, near_duplicates
from calm.data.leakage.stage import integers
from calm.data.store import tables
from calm.data.store.fingerprints import CROPS, SIDE, fingerprint, perceptual_hash
from calm.data.store.images import SUFFIXES, read_image
from calm.data.store.pixels import fit
from calm.data.store.shards import ImageStore
from calm.io import write_table
from calm.layout import Layout
from calm.params import load_params

PAGE = Path("docs/benchmarks/leakage.md")
STORED_SIDE = 384  # pixels, as photographs of the larger profiles are stored
DISTANCES = (4, 6, 8, 10, 12, 14)
DATASETS = {"ava": (255_502, 19_928), "ava_captions": (230_000, 9_362), "flickr_aes": (40_000, 4_737)}  # items, test
PLANTED = 20  # of each kind
STAGES = """
import json, resource, sys, time
from pathlib import Path
from calm.params import load_params
from calm.layout import Layout
from calm.data.splits import split
from calm.data.leakage.stage import filter_leakage
params, layout, told = load_params(Path(sys.argv[1])), Layout(Path(sys.argv[2])), {}
for name, stage in (("split", split), ("filter_leakage", filter_leakage)):
    wall, processor = time.perf_counter(), time.process_time()
    stage(params, layout)
    told[name] = [time.perf_counter() - wall, time.process_time() - processor]
told["GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(told))
"""
COST = """\
Tables of random hashes and made-up words with planted leaks of every kind (what can be missed are crops); `split`
and `filter_leakage` in one process with one thread. Seconds of processor time; the wall clock depends on who else
computes on the machine.

| items | split | filter_leakage | together | wall clock | GiB at most | planted leaks found |
| --- | --- | --- | --- | --- | --- | --- |""".splitlines()
READING = """\
Hashes within 8 bits find nearly every crop of up to a tenth. Alone they would not do at full size: pairs that are near
by chance multiply with every 2 bits, and AVA, AVA-Captions and FLICKR-AES have 17 billion pairs of a training and a
test photograph. The thumbnails of such chance pairs correlate less than those of copies; that is what decides. How rare
a wrong removal is at that size cannot be read off so few photographs; those that are taken for one here should be
looked at. OASIS's I479 and I832 are one photograph of a lightning, cropped.""".splitlines()
Draw = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Written and read again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(low: float, high: float) -> Draw:
    """Between low and high of width and of height cut off, at random on either side; saved as JPEG."""

    def cut(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        (across, down), (left, top) = rng.uniform(low, high, 2), rng.uniform(0, 1, 2)
        width, height = image.size
        sides = (across * left * width, down * top * height)
        ends = (width - across * (1 - left) * width, height - down * (1 - top) * height)
        return jpeg(image.crop(tuple(round(side) for side in (*sides, *ends))), 85)

    return cut


COPIES: dict[str, Draw] = {
    "saved again, JPEG quality 50": lambda image, _: jpeg(image, 50),
    "half the size": lambda image, _: jpeg(image.resize((image.width // 2, image.height // 2)), 85),
    "in grey": lambda image, _: jpeg(image.convert("L").convert("RGB"), 85),
    "mirrored": lambda image, _: jpeg(ImageOps.mirror(image), 85),
    "cropped, 2 to 5 % of each side's length": crop(0.02, 0.05),
    "cropped, 5 to 10 %": crop(0.05, 0.10),
    "cropped, 5 to 10 %, and mirrored": lambda image, rng: ImageOps.mirror(crop(0.05, 0.10)(image, rng)),
    "cropped, 10 to 15 %": crop(0.10, 0.15),
    "cropped, 15 to 20 %": crop(0.15, 0.20),
}


def looks_of(images: Iterable[Image.Image]) -> Looks:
    """As `calm.data.leakage.stage.load` reads them."""
    images = list(images)
    whole = [perceptual_hash(one) for image in images for one in (image, ImageOps.mirror(image))]
    prints = [fingerprint(image) for image in images]
    crops = np.stack([np.frombuffer(one.crops, "<u8") for one in prints])
    thumbnails = np.stack([np.frombuffer(one.thumbnail, np.uint8).reshape(SIDE, SIDE) for one in prints])
    return Looks(integers(pd.Series(whole)).reshape(-1, 2), crops, thumbnails)


def joined(first: Looks, second: Looks) -> Looks:
    """One after the other."""
    fields = ("whole", "crops", "thumbnails")
    return Looks(*(np.concatenate([getattr(first, field), getattr(second, field)]) for field in fields))


def photographs(folders: list[Path], prepared: list[str]) -> list[tuple[str, str, Image.Image]]:
    """Name, group and picture of every photograph, scaled as prepared ones are."""
    found = []
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            found.append((path.stem, path.stem, fit(read_image(path, max_pixels=2**27), STORED_SIDE)))
    for dataset in prepared:
        items = tables.items(Layout(), dataset).query("synthetic_edits.isna()")
        store = ImageStore(Layout().prepared(dataset))
        found += [
            (name, f"{dataset}/{group}", store[name]) for name, group in zip(items.item_id, items.group, strict=True)
        ]
    return found


def rates(folders: list[Path], prepared: list[str]) -> list[str]:
    """Lines of the page: what is found of each kind of copy, and what different photographs are taken for."""
    rules = load_params().data.leakage
    names, groups, images = (list(column) for column in zip(*photographs(folders, prepared), strict=True))
    originals, count = looks_of(images), len(images)
    here, there = np.arange(count), np.arange(count, 2 * count)
    lines = [f"{count} photographs in {len(set(groups))} groups, {STORED_SIDE} pixels at most.", ""]
    header = [f"of a crop too, within {distance}" for distance in DISTANCES]
    lines += [
        "Shares of the photographs whose copy is found, for the hash of the whole photograph alone, for the distances"
    ]
    lines += ["that params could give the search, and for the filter as it is:", ""]
    lines += ["| copy | hash of the whole within 8 | " + " | ".join(header) + " | **found**: 8, then thumbnails |"]
    lines += ["| --- |" + " --- |" * (len(DISTANCES) + 2)]
    for kind, make in COPIES.items():
        rng = np.random.default_rng(17)
        looks = joined(originals, looks_of([make(image, rng) for image in images]))
        near = candidates(looks, there, here, max(DISTANCES)).query("right == left - @count")
        nearest = near.groupby("left")["distance"].min()
        alone = np.bitwise_count(looks.whole[there] ^ looks.whole[here, :1]).min(axis=1)
        pairs = near_duplicates(looks, there, here, rules.phash_distance, rules.correlation)
        found = (pairs["right"] == pairs["left"] - count).sum()
        shares = [(alone <= 8).sum(), *((nearest <= distance).sum() for distance in DISTANCES)]
        lines.append(f"| {kind} | " + " | ".join(f"{n / count:.3f}" for n in shares) + f" | **{found / count:.3f}** |")
    return lines + different(originals, names, np.array(groups), rules.correlation)


def different(looks: Looks, names: list[str], groups: np.ndarray, least: float) -> list[str]:
    """Lines on pairs of photographs of different groups."""
    here = np.arange(len(names))
    near = candidates(looks, here, here, max(DISTANCES))
    near = near[groups[near["left"]] != groups[near["right"]]]
    near = near.assign(correlation=correlations(looks, near))
    pairs = int((groups[:, None] != groups[None]).sum() // 2)
    lines = ["", f"Of {pairs:,} pairs of photographs of different groups:", ""]
    lines += ["| hashes within | pairs | of them with correlating thumbnails | highest correlation of the others |"]
    lines += ["| --- | --- | --- | --- |"]
    for distance in DISTANCES:
        some = near[near["distance"] <= distance]
        keys = pd.Series([tuple(sorted(pair)) for pair in zip(some["left"], some["right"], strict=True)], dtype=object)
        best = some["correlation"].groupby(keys.to_numpy()).max() if len(some) else pd.Series(dtype=float)
        rest = best[best < least]
        highest = f"{rest.max():.2f}" if len(rest) else "-"
        lines.append(f"| {distance} | {len(best)} | {len(best) - len(rest)} | {highest} |")
    taken = near[near["correlation"] >= least]
    told = sorted(
        {" and ".join(sorted((names[a], names[b]))) for a, b in zip(taken["left"], taken["right"], strict=True)}
    )
    return [*lines, "", f"Taken for one: {'; '.join(told) or 'none'}."]


def drawn(number: int) -> Image.Image:
    """A SYNTHETIC picture of smooth patches, unlike that of any other number."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)


def write_tables(layout: Layout, scale: float) -> dict[str, set[str]]:
    """Random tables of all datasets in the layout of `prepare`; per reason the planted items of flickr_aes."""
    rng = np.random.default_rng(5)
    ava, captions, flickr = (
        _items(name, round(items * scale), round(test * scale), rng) for name, (items, test) in DATASETS.items()
    )
    shared = rng.choice(len(ava[0]), len(captions[0]), replace=False)  # AVA-Captions shows photographs of AVA
    for column in ("item_id", "sha256", "phash", "phash_mirrored"):
        captions[0][column] = ava[0][column].to_numpy()[shared]
    captions = (captions[0], ava[1][shared], ava[2][shared])
    said = _comments(captions[0]["item_id"], rng)
    of_test = said[said["item_id"].isin(captions[0].loc[captions[0]["split"] == "test", "item_id"])]
    planted = _plant(flickr, ava, of_test, rng)
    empty = said.iloc[:0]
    for name, (items, crops, thumbnails), told in zip(
        DATASETS, (ava, captions, flickr), (empty, said, planted.pop("said")), strict=True
    ):
        order = np.argsort(items["item_id"].to_numpy(object))
        folder = layout.prepared(name)
        write_table(folder / "items.parquet", items.iloc[order].reset_index(drop=True), tables.ITEM)
        prints = {"dataset": name, "item_id": items["item_id"].to_numpy(object)[order]}
        prints |= {
            "crops": [row.tobytes() for row in crops[order]],
            "thumbnail": [row.tobytes() for row in thumbnails[order]],
        }
        write_table(folder / "fingerprints.parquet", pd.DataFrame(prints), tables.FINGERPRINT)
        write_table(folder / "comments.parquet", told.assign(dataset=name), tables.COMMENT)
        write_table(folder / "ratings.parquet", _ratings(name, items, rng), tables.RATING)
    return planted


def _items(name: str, count: int, test: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows of ITEM, hashes of crops, thumbnails."""
    hexadecimal = [f"{value:016x}" for value in rng.integers(0, 2**64, 2 * count, dtype=np.uint64).tolist()]
    ids = [f"{name[0]}{number:06d}" for number in range(count)]
    columns = {
        "dataset": name,
        "item_id": ids,
        "split": np.where(rng.permutation(count) < test, "test", "train").astype(object),
        "split_rule": "drawn for a benchmark",
        "group": ids,
        "width": np.int32(384),
        "height": np.int32(256),
        "sha256": [f"{name}{number:058d}" for number in range(count)],
        "phash": hexadecimal[::2],
        "phash_mirrored": hexadecimal[1::2],
        "shard": "none",
        "row": np.int32(0),
        "licence": "synthetic",
        "synthetic_edits": None,
    }
    crops = rng.integers(0, 2**64, (count, CROPS), dtype=np.uint64)
    return pd.DataFrame(columns), crops, rng.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)


def _comments(ids: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    """Five comments of twelve made-up words for each photograph."""
    words = np.array([f"word{number:04d}" for number in range(5000)], dtype=object)
    texts = [" ".join(row) for row in words[rng.integers(0, len(words), (5 * len(ids), 12))]]
    rows = {"item_id": np.repeat(ids.to_numpy(object), 5), "comment_id": [f"c{n}" for n in range(len(texts))]}
    return pd.DataFrame({**rows, "text": texts, "text_clean": texts, "aspect": None, "origin": "human"})


def _ratings(name: str, items: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A crowd's score of every photograph; of flickr_aes also five raters', other ones for the test photographs."""
    crowd = pd.DataFrame({"item_id": items["item_id"], "rater_id": None, "n": 5})
    parts = [crowd]
    if name == "flickr_aes":
        first, number = np.where(items["split"] == "test", 173, 0), np.where(items["split"] == "test", 37, 173)
        drawn_raters = first[:, None] + (rng.integers(0, 173, len(items))[:, None] + np.arange(5)) % number[:, None]
        rater = [f"r{number:03d}" for number in drawn_raters.ravel()]
        parts.append(pd.DataFrame({"item_id": np.repeat(items["item_id"], 5), "rater_id": rater, "n": 1}))
    frame = pd.concat(parts, ignore_index=True).assign(
        dataset=name, score=3.0, score_min=1.0, score_max=5.0, votes=None
    )
    return frame.assign(origin="synthetic_rater")


def _plant(flickr: tuple, ava: tuple, said: pd.DataFrame, rng: np.random.Generator) -> dict:
    """Leaks of every kind into training items of flickr_aes: items by reason, and under "said" their comments."""
    test = rng.choice(np.flatnonzero(ava[0]["split"] == "test"), 7 * PLANTED, replace=False)
    train = rng.choice(np.flatnonzero(flickr[0]["split"] == "train"), 7 * PLANTED, replace=False)
    kinds = ("id", "sha256", "phash", "phash", "phash", "crop", "caption")
    copies = (
        None,
        None,
        COPIES["half the size"],
        COPIES["saved again, JPEG quality 50"],
        COPIES["mirrored"],
        crop(0.04, 0.08),
        None,
    )
    planted: dict = {kind: set() for kind in kinds}
    rows = []
    for number, (ours, theirs) in enumerate(zip(train, test, strict=True)):
        kind, copy = kinds[number % 7], copies[number % 7]
        for column in {"id": ("item_id", "group"), "sha256": ("sha256",)}.get(kind, ()):
            flickr[0].loc[ours, column] = ava[0].loc[theirs, column]
        if copy is not None:
            _show(ava, theirs, drawn(number))
            _show(flickr, ours, copy(drawn(number), rng))
        planted[kind].add(flickr[0].loc[ours, "item_id"])
        if kind == "caption":
            rows.append({"item_id": flickr[0].loc[ours, "item_id"], "comment_id": f"c{number}"})
    texts = said["text"].to_numpy(object)[:: len(said) // PLANTED][:PLANTED]
    copied = pd.DataFrame(rows).assign(text=[f"{text.upper()} !" for text in texts], aspect=None, origin="human")
    return {**planted, "said": copied.assign(text_clean=copied["text"])}


def _show(dataset: tuple, row: int, image: Image.Image) -> None:
    """Let an item show a picture."""
    looks = looks_of([image])
    for column, value in zip(("phash", "phash_mirrored"), looks.whole[0].tolist(), strict=True):
        dataset[0].loc[row, column] = f"{value:016x}"
    dataset[1][row], dataset[2][row] = looks.crops[0], looks.thumbnails[0]


def cost(scale: float) -> tuple[str, dict]:
    """A line of the page, and the seconds and GiB behind it."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        planted = write_tables(layout, scale)
        params = load_params().model_dump()
        params["data"]["datasets"] = {name: {} for name in DATASETS}
        params["data"]["roles"] = {
            "unlabelled": ["ava"],
            "generic": [],
            "comments": ["ava_captions"],
            "scores": ["ava"],
            "raters": ["flickr_aes"],
        }
        params["data"]["split"]["raters"]["shots"] = [10, 100]
        path = layout.root / "params.yaml"
        path.write_text(json.dumps(params), encoding="utf-8")
        done = subprocess.run([sys.executable, "-c", STAGES, path, folder], check=True, capture_output=True, text=True)
        told = json.loads(done.stdout)
        found = check(layout, planted)
    items = sum(round(count * scale) for count, _ in DATASETS.values())
    wall, processor = (told["split"][i] + told["filter_leakage"][i] for i in (0, 1))
    figures = (told["split"][1], told["filter_leakage"][1], processor, wall)
    line = f"| {items:,} | " + " | ".join(f"{seconds:.0f}" for seconds in figures) + f" | {told['GiB']:.1f} | {found} |"
    return line, {"processor": processor, "items": items}


def check(layout: Layout, planted: dict[str, set[str]]) -> str:
    """How many planted leaks were removed for their reason. All must be but the crops, and nothing may leak then."""
    removed = tables.removed(layout)
    count = 0
    for reason, ids in planted.items():
        found = ids & set(removed.loc[(removed["reason"] == reason) & (removed["dataset"] == "flickr_aes"), "item_id"])
        count += len(found)
        if reason != "crop" and found != ids:
            raise AssertionError(f"planted as {reason} and not found: {sorted(ids - found)}")
    metrics = json.loads((layout.lists / "leakage.json").read_text(encoding="utf-8"))
    if metrics["leaked_after"]:
        raise AssertionError(f"{metrics['leaked_after']} items leak after filtering")
    if tables.support_sets(layout, "flickr_aes")["rater_id"].nunique() != 37:
        raise AssertionError("not all 37 held-out raters have support sets")
    return f"{count} of {sum(map(len, planted.values()))}"


def main() -> None:
    """Print the page; write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, nargs="*", default=[], help="folders of photographs")
    parser.add_argument("--prepared", nargs="*", default=["photos"], help="prepared datasets")
    parser.add_argument("--scales", type=float, nargs="*", default=[0.1, 1.0], help="1 = the published sizes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    arguments = parser.parse_args()
    lines = ["# The leakage filter: what it finds, what it costs", ""]
    lines += ["Written by `python benchmarks/leakage.py --write`.", ""]
    lines += ["## Rates on real photographs", "", *rates(arguments.photographs, arguments.prepared), "", *READING, ""]
    lines += ["## Cost at full size", "", *COST]
    measured = []
    for scale in arguments.scales:
        line, figures = cost(scale)
        lines.append(line)
        measured.append(figures)
    if len(measured) > 1:
        more, longer = (measured[-1][key] / measured[0][key] for key in ("items", "processor"))
        lines += ["", f"{more:.1f} times the items take {longer:.1f} times as long."]
    page = "\n".join(lines) + "\n"
    print(page)
    if arguments.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
