"""How much faster a rater's in-context personal scores are when the support sets are read once, with equal scores.

    python -m benchmarks.personalised [--photographs 137] [--support 10] [--draws 2] [--model models/finetune/scores]

By default a rater of FLICKR-AES' protocol: they rated some 137 photographs; of each draw 10 are shown and all others
are scored. Without sharing, each query encodes its eleven photographs and reads the whole prompt. With sharing, each
photograph is looked at once, and `Calm.in_context` keeps a support prompt's keys and values for all queries of a draw.
The scores are compared before any time is printed. The ratings are made up: they do not change the work. Float32: in
bfloat16 the two ways sum in another order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from benchmarks.scoring import photographs
from calm.assistant import Calm
from calm.assistant.personal import read_last
from calm.instructions import personal_messages
from calm.layout import Layout

BATCH = 16
TOLERANCE = 1e-3  # points on the scale of 1 to 10


@dataclass(frozen=True)
class Rater:
    """One person's photographs, made-up ratings of them, and the draws: which are shown, each time."""

    images: Sequence[Image]
    ratings: NDArray[np.float64]
    shown: NDArray[np.int64]  # (draws, k)

    @classmethod
    def drawn(cls, images: Sequence[Image], support: int, draws: int, seed: int = 17) -> Rater:
        """Ratings from 1.5 to 8.5 and `draws` times `support` photographs to show."""
        rng = np.random.default_rng(seed)
        shown = np.stack([rng.permutation(len(images))[:support] for _ in range(draws)])
        return cls(images, rng.permutation(np.linspace(1.5, 8.5, len(images))), shown)

    def queries(self, shown: NDArray[np.int64]) -> NDArray[np.int64]:
        """The others, in order."""
        return np.setdiff1d(np.arange(len(self.images)), shown)


@torch.inference_mode()
def one_by_one(calm: Calm, rater: Rater) -> np.ndarray:
    """Expectation and regression (draws * queries, 2), every prompt read whole."""
    assert calm._processor is not None
    processor, found = calm._processor, []
    for shown in rater.shown:
        text = processor.prompt(personal_messages(rater.ratings[shown].tolist()), score=True)
        ids = processor.tokenizer(text, return_tensors="pt").input_ids.to(calm.model.device)
        for query in rater.queries(shown):
            images = [rater.images[i] for i in (*shown, query)]
            pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
            tokens = calm.model.mfam(calm.model.look(pixels.to(calm.model.device)))
            read = read_last(calm.model, calm.model.embed_prompt(ids, tokens), tokens[-1:], use_cache=False)
            found.append((read.expectation.item(), read.regression.item()))
    return np.array(found)


@torch.inference_mode()
def shared(calm: Calm, rater: Rater) -> np.ndarray:
    """The same scores from one look at each photograph and one reading of each support set."""
    tokens = torch.cat([calm.model.mfam(part) for part in calm._encoded(rater.images, BATCH)])
    found = []
    for shown in rater.shown:
        context = calm.in_context(tokens[shown], rater.ratings[shown].tolist())
        found.append(np.stack(context.score(tokens[rater.queries(shown)], BATCH), axis=1))
    return np.concatenate(found)


def main() -> None:
    """Print the largest difference, seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=137)
    parser.add_argument("--support", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, default=Path("models/finetune/scores"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    calm = Calm.from_pretrained(chosen.model, dtype="float32")
    images = photographs(Layout(), chosen.photographs)
    warm = Rater.drawn(images[: chosen.support + 1], chosen.support, draws=1)
    shared(calm, warm)
    one_by_one(calm, warm)
    rater = Rater.drawn(images, chosen.support, chosen.draws)

    start = time.perf_counter()
    together = shared(calm, rater)
    with_sharing = time.perf_counter() - start
    start = time.perf_counter()
    alone = one_by_one(calm, rater)
    without = time.perf_counter() - start

    difference = np.abs(together - alone).max()
    assert difference < TOLERANCE, f"scores differ by {difference}"
    print(
        f"{len(images)} photographs, {chosen.draws} draws of {chosen.support} shown and {len(images) - chosen.support} "
        f"scored; largest difference {difference:.1e} points"
    )
    print(f"whole prompts   {without:7.2f} s")
    print(f"shared support  {with_sharing:7.2f} s, encoding and reading the support sets included")
    print(f"ratio {without / with_sharing:.1f}")


if __name__ == "__main__":
    main()
