"""What a written suggestion suggests: its sentences against the remedies of the taxonomy, by a text encoder.

The encoder tells which attribute is meant. It is all but blind to directions ("raise the exposure" is next to "lower
the exposure"), so among the attribute's states words in common with their remedies decide, the encoder where these tie.

Any model's words can be judged this way, not only those that choose among calm's own remedies. How well the parser
does is measured beside what it is used for: on remedies that it has not seen, and against exact rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calm.attributes.naming import content_words

if TYPE_CHECKING:
    from calm.attributes.taxonomy import Taxonomy

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

LEAST_COSINE = 0.5  # of a sentence and a remedy, under which the sentence suggests nothing
LEAVE = "leave it as it is"
LEAVE_WORDS = (
    "leave it as it is",
    "I would not change anything",
    "nothing needs to be changed",
    "it is fine as it is",
    "no improvement is needed",
)


@dataclass(frozen=True)
class Parser:
    """Remedies with the label, 'attribute: state', that each undoes, embedded with unit length."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: NDArray[np.float32]
    embed: Embed

    @classmethod
    def build(cls, known: Taxonomy, embed: Embed) -> Parser:
        """From every remedy of the taxonomy, and the ways of saying that nothing is to be done."""
        pairs = [
            (f"{attribute.name}: {state.name}", remedy)
            for attribute in known.attributes
            for state in attribute.states
            for remedy in state.remedies
        ]
        pairs += [(LEAVE, text) for text in LEAVE_WORDS]
        labels, texts = zip(*pairs, strict=True)
        return cls(labels, texts, _unit(embed(texts)), embed)

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """Labels suggested by each text, in the order of its sentences, each once; 'leave it' is no label."""
        sentences = [(index, part) for index, text in enumerate(texts) for part in split(text)]
        found: list[list[str]] = [[] for _ in texts]
        if not sentences:
            return found
        cosines = _unit(self.embed([part for _, part in sentences])) @ self.vectors.T
        for (index, part), row in zip(sentences, cosines, strict=True):
            label = self._nearest(part, row)
            if row.max() >= LEAST_COSINE and label != LEAVE and label not in found[index]:
                found[index].append(label)
        return found

    def _nearest(self, sentence: str, cosines: NDArray[np.float32]) -> str:
        """Label of the remedy that a sentence is about, given its cosine with each."""
        attribute = self.labels[int(cosines.argmax())].split(":")[0]
        words = content_words(sentence)
        rows = [row for row, label in enumerate(self.labels) if label.split(":")[0] == attribute]
        common = {row: _common(words, content_words(self.texts[row])) for row in rows if np.isfinite(cosines[row])}
        return self.labels[max(common, key=lambda row: (common[row], cosines[row]))]

    def held_out(self) -> dict[str, Any]:
        """Share of remedies, each left out in turn, whose attribute and state the others tell."""
        cosines = self.vectors @ self.vectors.T
        np.fill_diagonal(cosines, -np.inf)
        nearest = [self._nearest(text, row) for text, row in zip(self.texts, cosines, strict=True)]
        rows = [(own, other) for own, other in zip(self.labels, nearest, strict=True) if own != LEAVE]
        return {
            "remedies": len(rows),
            "attribute": round(float(np.mean([a.split(":")[0] == b.split(":")[0] for a, b in rows])), 6),
            "state": round(float(np.mean([a == b for a, b in rows])), 6),
        }


def _common(first: frozenset[str], second: frozenset[str]) -> float:
    """Dice's coefficient of two sets of words."""
    return 2 * len(first & second) / max(1, len(first) + len(second))


def split(text: str) -> list[str]:
    """Sentences, and clauses joined by a semicolon, that hold a word."""
    return [part.strip() for part in re.split(r"[.!?;\n]+", text) if re.search(r"\w", part)]


def agreement(parser: Parser, rules: Callable[[str], Iterable[str]], texts: Sequence[str]) -> dict[str, Any]:
    """Of the sentences in which exact rules find states, the share in which the parser's is one of them."""
    sentences = [part for text in texts for part in split(text)]
    judged = [(part, named) for part in sentences if (named := set(rules(part)))]
    result: dict[str, Any] = {"sentences": len(sentences), "named_by_rules": len(judged)}
    if not judged:
        return result | {"value": None, "reason": "the rules find no state in any sentence"}
    parsed = parser([part for part, _ in judged])
    agreed = [not named.isdisjoint(labels) for labels, (_, named) in zip(parsed, judged, strict=True)]
    return result | {"value": round(float(np.mean(agreed)), 6)}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
