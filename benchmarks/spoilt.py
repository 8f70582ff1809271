"""Does the model know spoilt pictures? Ruined twins of photographs and empty frames, made here by Pillow and numpy.

    python -m benchmarks.spoilt FOLDER [--photographs 50] [--model models/finetune/scores]

Training knows spoilt pictures too (`calm.attributes.edits`), by other code and other strengths. Printed: for each
fault the share of twins that score below their original, and for each empty frame the share of the folder's
photographs that score above it, for every public and readout.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from calm.assistant import Calm, Score
from calm.assistant.inputs import opened

SIZE = (640, 480)
READOUTS = ("regression", "expectation", "text")


def _noisy(photograph: Image.Image) -> Image.Image:
    grain = np.random.default_rng(1).normal(0, 45, (photograph.height, photograph.width, 3))
    return Image.fromarray(np.clip(np.asarray(photograph) + grain, 0, 255).astype(np.uint8))


def _compressed(photograph: Image.Image) -> Image.Image:
    file = BytesIO()
    photograph.save(file, format="JPEG", quality=4)
    return Image.open(file).convert("RGB")


def _blurred(photograph: Image.Image) -> Image.Image:
    return photograph.filter(ImageFilter.GaussianBlur(max(photograph.size) / 80))


def _stretched(photograph: Image.Image) -> Image.Image:
    """As from 5:4 to 10:3. The encoder sees squares: there the twin is less sharp from top to bottom, and no wider."""
    factor = (10 / 3 / (5 / 4)) ** 0.5
    return photograph.resize((round(photograph.width * factor), round(photograph.height / factor)))


FAULTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "heavily blurred": _blurred,
    "noisy": _noisy,
    "compressed": _compressed,
    "dark": lambda photograph: ImageEnhance.Brightness(photograph).enhance(0.2),
    "stretched": _stretched,
}


def empty_frames() -> dict[str, Image.Image]:
    """Frames that show nothing."""
    grain = np.random.default_rng(2).integers(256, size=(*SIZE[::-1], 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, SIZE[0]).astype(np.uint8)
    return {
        "black": Image.new("RGB", SIZE, "black"),
        "white": Image.new("RGB", SIZE, "white"),
        "grey": Image.new("RGB", SIZE, (128, 128, 128)),
        "blue": Image.new("RGB", SIZE, (40, 70, 160)),
        "noise": Image.fromarray(grain),
        "gradient": Image.fromarray(np.broadcast_to(ramp[None, :, None], (*SIZE[::-1], 3)).copy()),
    }


def main() -> None:
    """Score originals, twins and frames, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=50)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    drawn = np.random.default_rng(17).permutation(len(files))[: arguments.photographs]
    photographs = [opened(str(files[number])).convert("RGB") for number in drawn]
    calm = Calm.from_pretrained(arguments.model)
    frames = empty_frames()
    for public in calm.publics:
        own = calm.score(photographs, public=public)
        for fault, ruin in FAULTS.items():
            twins = calm.score([ruin(photograph) for photograph in photographs], public=public)
            print(f"{public}: {fault}, below their original: {_below(twins, own)}")
        for name, score in zip(frames, calm.score(list(frames.values()), public=public), strict=True):
            print(f"{public}: {name}, of the photographs above: {_below([score] * len(own), own)}")


def _below(scores: list[Score], own: list[Score]) -> str:
    """Share of scores that lie below those beside them, by every readout."""
    told = []
    for readout in READOUTS:
        pairs = [(getattr(one, readout), getattr(other, readout)) for one, other in zip(scores, own, strict=True)]
        known = [one < other for one, other in pairs if one is not None and other is not None]
        told.append(f"{readout} {np.mean(known):.2f}")
    return ", ".join(told)


if __name__ == "__main__":
    main()
