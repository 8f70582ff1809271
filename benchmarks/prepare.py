"""How fast photographs are prepared, beside a plain Pillow loop and beside decoding alone, with equal pixels.

    python benchmarks/prepare.py [--rounds 3] [--threads 2] [--max-side 288] [--write]

The real photographs of the demo's wheels, read from files that the system has in memory. The plain loop is what one
would write first: open, turn, convert by the colour profile, scale, save, a file each. Decoding alone is the roofline:
nothing that ends in pixels can be faster. That the loop and `prepare` store the same bytes for every photograph, for
any number of threads, is asserted before a time is printed. Seconds of processor time decide, the best of the rounds:
the wall clock depends on who else computes. --write puts the tables into docs/benchmarks/prepare.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from PIL import Image, ImageCms, ImageOps

from calm.data import sources
from calm.data.prepare import prepare
from calm.data.store.fingerprints import fingerprint, perceptual_hash
from calm.data.store.images import encode, read_image
from calm.data.store.pixels import fit
from calm.data.store.shards import ImageStore
from calm.layout import Layout
from calm.params import Params, load_params, parse_params
from calm.seeds import stream

PAGE = Path("docs/benchmarks/prepare.md")
SRGB = ImageCms.createProfile("sRGB")
ABOUT = """\
# Preparing photographs

Made by `python benchmarks/prepare.py --write`: {count} real photographs of the demo's wheels,
{megapixels:.0f} megapixels in all, scaled to at most {side} pixels. The plain loop and `prepare` stored the same bytes
for every photograph, with 1 and with {threads} threads (asserted before anything was timed). Best of {rounds} rounds.
Images a second of processor time: what one core does; the wall clock depends on who else computes.
"""
READING = """
How to read it: the roofline decodes and does nothing else. `prepare` does all that the plain loop does, and besides
checks every file against the manifest (sha256) and hashes each photograph, whole and cropped, for the leakage filter;
its steps are shown on their own, for all photographs. Most of its time goes into colour profiles, which are applied to
every pixel before scaling, and into scaling: both could be had for less by decoding smaller, but then the pixels would
be others. `prepare` runs on as many threads as `threads.prepare` says. The wall clock, above all of the rows with
several threads, tells as much about what else ran on the machine.
"""


@dataclass(frozen=True)
class Time:
    """Best of the rounds, in seconds."""

    processor: float
    wall: float


def best(work: Callable[[], object], rounds: int) -> Time:
    """Run several times; processor seconds count all threads."""
    found = []
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        found.append((time.process_time() - processor, time.perf_counter() - wall))
    return Time(min(one for one, _ in found), min(one for _, one in found))


def plain_loop(paths: list[Path], side: int, quality: int, out: Path) -> None:
    """What one would write first, a photograph after another."""
    for path in paths:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image = convert(image) if "icc_profile" in image.info else image.convert("RGB")
        scale = side / max(image.size)
        if scale < 1:
            width, height = (max(1, round(edge * scale)) for edge in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        image.save(out / f"{path.stem}.jpg", quality=quality, subsampling=0)


def decoded(path: Path) -> Image.Image:
    """Pixels, and nothing else."""
    with Image.open(path) as image:
        image.load()
    return image


def decode(path: Path) -> None:
    """Pixels, that are thrown away."""
    decoded(path)


def convert(image: Image.Image) -> Image.Image:
    """By the embedded profile to sRGB, as the plain loop and `prepare` do."""
    embedded = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    return cast(Image.Image, ImageCms.profileToProfile(image, embedded, SRGB, outputMode="RGB"))


def with_threads(params: Params, threads: int, side: int) -> Params:
    """Photographs alone, no views."""
    raw = params.model_dump()
    raw["data"]["datasets"] = {"photos": {**raw["data"]["datasets"]["photos"], "views": 0, "raters": 0, "comments": 0}}
    raw["data"]["roles"] = {role: ["photos"] if role == "unlabelled" else [] for role in raw["data"]["roles"]}
    raw["data"]["image"]["max_side"] = side
    raw["threads"]["prepare"] = threads
    return parse_params(raw, "benchmark")


def stored(folder: Path) -> dict[str, str]:
    """sha256 of every stored photograph."""
    store = ImageStore(folder)
    return {name: hashlib.sha256(store.encoded(name)).hexdigest() for name in store}


def main() -> None:
    """Assert, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-side", type=int, default=288)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    params = with_threads(load_params(), 1, options.max_side)
    many = with_threads(load_params(), options.threads, options.max_side)
    photographs = list(sources.source("photos", params).photographs())
    paths = [one.path for one in photographs]
    megapixels = sum(width * height for width, height in (Image.open(path).size for path in paths)) / 1e6
    with tempfile.TemporaryDirectory() as name:
        page = measure(paths, params, many, options, Path(name))
    about = ABOUT.format(
        count=len(paths), megapixels=megapixels, side=options.max_side, threads=options.threads, rounds=options.rounds
    )
    print(page)
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(f"{about}\n{page}{READING}", encoding="utf-8")


def measure(paths: list[Path], params: Params, many: Params, options: argparse.Namespace, root: Path) -> str:
    """The tables."""
    side, quality, rounds = options.max_side, params.data.image.jpeg_quality, options.rounds
    one, several, loose = Layout(root / "one"), Layout(root / "several"), root / "loose"
    loose.mkdir()
    for layout, chosen in ((one, params), (several, many)):
        sources.fetch("photos", chosen, layout)
        prepare("photos", chosen, layout)
    plain_loop(paths, side, quality, loose)
    ours = stored(one.prepared("photos"))
    assert ours == stored(several.prepared("photos")), "other threads, other bytes"
    plain = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in loose.glob("*.jpg")}
    assert ours == plain, sorted(name for name in ours if ours[name] != plain.get(name))

    images = [read_image(path, max_pixels=params.data.image.max_pixels) for path in paths]
    small = [fit(image, side) for image in images]
    profiled = [image for image in map(decoded, paths) if "icc_profile" in image.info]
    pool = ThreadPoolExecutor(options.threads)
    rows = {
        "decoding alone (roofline)": best(lambda: list(map(decode, paths)), rounds),
        f"decoding alone, {options.threads} threads": best(lambda: list(pool.map(decode, paths)), rounds),
        "plain Pillow loop": best(lambda: plain_loop(paths, side, quality, loose), rounds),
        "`prepare`, 1 thread": best(lambda: prepare("photos", params, one), rounds),
        f"`prepare`, {options.threads} threads": best(lambda: prepare("photos", many, several), rounds),
        f"of it: colour profiles, which {len(profiled)} have": best(
            lambda: [convert(image) for image in profiled], rounds
        ),
        "of it: scaling": best(lambda: [fit(image, side) for image in images], rounds),
        "of it: encoding": best(lambda: [encode(image, quality) for image in small], rounds),
        "of it: perceptual hashes": best(
            lambda: [perceptual_hash(image) + perceptual_hash(ImageOps.mirror(image)) for image in small], rounds
        ),
        "of it: hashes of crops": best(lambda: [fingerprint(image) for image in small], rounds),
    }
    roof = rows["decoding alone (roofline)"].processor
    lines = [
        "| step | images/s of one core | share of the roofline | images/s, wall clock |",
        "| --- | --: | --: | --: |",
    ]
    for label, found in rows.items():
        share = f"{roof / found.processor:.0%}" if not label.startswith("of it") else ""
        lines.append(f"| {label} | {len(paths) / found.processor:.1f} | {share} | {len(paths) / found.wall:.1f} |")
    return "\n".join(lines) + "\n" + reading(one, loose)


def reading(layout: Layout, loose: Path, draws: int = 20_000) -> str:
    """Bytes of photographs drawn at random, from shards and from files of their own."""
    store = ImageStore(layout.prepared("photos"))
    names = [str(name) for name in stream(0, "benchmark").choice(sorted(store), draws)]
    shards = best(lambda: [store.encoded(name) for name in names], 3).processor / draws
    files = best(lambda: [(loose / f"{name}.jpg").read_bytes() for name in names], 3).processor / draws
    return (
        f"\nReading one stored photograph at random: {shards * 1e6:.1f} microseconds from a shard, "
        f"{files * 1e6:.1f} from a file of its own, both in the system's memory.\n"
    )


if __name__ == "__main__":
    main()
