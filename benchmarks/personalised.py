"""How much faster in-context personal scores are when a rater's support set is read once, with equal scores.

    python -m benchmarks.personalised [--support 10] [--queries 24] [--model models/finetune/scores]

Without sharing, each query encodes its eleven photographs and reads the whole prompt. With sharing, each photograph is
looked at once, and `Calm.in_context` keeps the support prompt's keys and values for all queries of the rater. The
scores are compared before any time is printed. The support photographs' ratings are made up: they do not change the
work. Float32: in bfloat16 the two ways sum in another order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from benchmarks.scoring import photographs
from calm.assistant import Calm
from calm.instructions import personal_messages
from calm.layout import Layout
from calm.personal import read_last

BATCH = 16
TOLERANCE = 1e-3  # points on the scale of 1 to 10


@torch.inference_mode()
def one_by_one(calm: Calm, support: Sequence[Image], scores: Sequence[float], queries: Sequence[Image]) -> np.ndarray:
    """(N, 2): expectation and regression, every prompt read whole."""
    assert calm._processor is not None
    processor, found = calm._processor, []
    for query in queries:
        ids = processor.tokenizer(
            processor.prompt(personal_messages(scores), score=True), return_tensors="pt"
        ).input_ids
        pixels = processor.image_processor([*support, query], return_tensors="pt")["pixel_values"]
        tokens = calm.model.mfam(calm.model.encode_images(pixels.to(calm.model.device)))
        embeddings = calm.model.embed_prompt(ids.to(calm.model.device), tokens)
        read = read_last(calm.model, embeddings, tokens[-1:], use_cache=False)
        found.append((read.expectation.item(), read.regression.item()))
    return np.array(found)


@torch.inference_mode()
def shared(calm: Calm, support: Sequence[Image], scores: Sequence[float], queries: Sequence[Image]) -> np.ndarray:
    """The same scores from one look at each photograph and one reading of the support set."""
    tokens = torch.cat([calm.model.mfam(part) for part in calm._encoded([*support, *queries], BATCH)])
    context = calm.in_context(tokens[: len(support)], scores)
    return np.stack(context.score(tokens[len(support) :], BATCH), axis=1)


def main() -> None:
    """Print the largest difference, seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--support", type=int, default=10)
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, default=Path("models/finetune/scores"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    calm = Calm.from_pretrained(chosen.model, dtype="float32")
    images = photographs(Layout(), chosen.support + chosen.queries)
    support, queries = images[: chosen.support], images[chosen.support :]
    scores = [1.5 + 7 * step / max(1, len(support) - 1) for step in range(len(support))]
    shared(calm, support, scores, queries[:1])
    one_by_one(calm, support, scores, queries[:1])  # both warm

    start = time.perf_counter()
    together = shared(calm, support, scores, queries)
    with_sharing = time.perf_counter() - start
    start = time.perf_counter()
    alone = one_by_one(calm, support, scores, queries)
    without = time.perf_counter() - start

    difference = np.abs(together - alone).max()
    assert difference < TOLERANCE, f"scores differ by {difference}"
    print(f"{len(support)} photographs shown, {len(queries)} scored; largest difference {difference:.1e} points")
    print(f"whole prompts   {without:7.2f} s")
    print(f"shared support  {with_sharing:7.2f} s, encoding and reading the support set included")
    print(f"ratio {without / with_sharing:.1f}")


if __name__ == "__main__":
    main()
