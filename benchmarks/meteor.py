"""How much faster caption figures are than pycocoevalcap's, with exactly equal scores.

    python benchmarks/meteor.py [--captions 2000] [--references 3]

Synthetic comments: the grammar's, of seeded edits. First METEOR alone on tokenised captions: pycocoevalcap asks its jar
caption by caption; calm a window of captions at a time. Then all figures but SPICE of
two models' comments, each with the tokenizer as its package starts it. Scores are compared before a time is printed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from calm.attributes.edits import draw_edits
from calm.attributes.grammar import comment
from calm.attributes.taxonomy import taxonomy
from calm.evaluation.statistics.captions import BLEU, scored, tokenised
from calm.evaluation.statistics.jars import java, meteor
from calm.seeds import stream


def comments(number: int, kind: str) -> str:
    """A synthetic comment of one to three edits."""
    rng = stream(number, "benchmark", kind)
    return comment(draw_edits(rng, 1 + number % 3, taxonomy()), rng)


def theirs(given: Sequence[str], expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """The figures of pycocoevalcap for one model's captions, from raw text."""
    tokenizer = PTBTokenizer()
    truth = tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(expected)})
    result = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(given)})
    found = dict(zip(BLEU, Bleu(4).compute_score(truth, result, verbose=0)[0], strict=True))
    found["meteor"] = Meteor().compute_score(truth, result)[0]
    found["rouge_l"] = Rouge().compute_score(truth, result)[0]
    found["cider"] = Cider().compute_score(truth, result)[0]
    return found


def seconds() -> np.ndarray:
    """On the clock, and of processor time of this process and of those that have ended."""
    used = os.times()
    return np.array([time.perf_counter(), used.user + used.system + used.children_user + used.children_system])


def main() -> None:
    """Print equality, seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=2000)
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="of METEOR; the least time of each side counts")
    parser.add_argument("--meteor-alone", action="store_true", help="leave out the other figures")
    chosen = parser.parse_args()
    os.environ["PATH"] = f"{java().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    models = [[comments(i, kind) for i in range(chosen.captions)] for kind in ("first", "second")]
    references = [[comments(i, f"reference {r}") for r in range(chosen.references)] for i in range(chosen.captions)]
    tokens = tokenised(models, references)

    truth, result = dict(enumerate(tokens.references)), {i: [text] for i, text in enumerate(tokens.captions[0])}
    alone, windows = [], []
    for _ in range(chosen.rounds):
        start = seconds()
        score, per_photo = Meteor().compute_score(truth, result)
        alone.append(seconds() - start)
        start = seconds()
        found = meteor(tokens.captions[0], tokens.references, np.zeros((0, chosen.captions)))
        windows.append(seconds() - start)
        print(f"pycocoevalcap, calm on the clock and in processor time: {alone[-1]}, {windows[-1]}", flush=True)
        assert found.score == score and found.per_photo.tolist() == per_photo, "METEOR differs"
    print(f"METEOR of {chosen.captions} captions, {chosen.references} references each; scores exactly equal")
    theirs_best, ours_best = (min(found[0] for found in side) for side in (alone, windows))
    print(f"pycocoevalcap {theirs_best:7.2f} s  calm {ours_best:7.2f} s")
    print(f"ratio {theirs_best / ours_best:.2f}", flush=True)
    if chosen.meteor_alone:
        return

    begun = time.perf_counter()
    expected = [theirs(given, references) for given in models]
    whole = time.perf_counter() - begun
    begun = time.perf_counter()
    again = tokenised(models, references)
    ours = [scored(given, again.references).corpus for given in again.captions]
    together = time.perf_counter() - begun
    for own, other in zip(ours, expected, strict=True):
        assert {name: own[name] for name in other} == other, "figures differ"

    print(f"two models   pycocoevalcap {whole:7.2f} s  calm, both forms of each figure {together:7.2f} s")
    print(f"ratio {whole / together:.2f}")


if __name__ == "__main__":
    main()
