"""Prompts and answers: the wording of every task's, and the stage `build_instructions` that makes them.

It lives here alone: training, evaluation and `calm score` ask in the same words. Only the score's prompt and the form
of its answer ("6.5.") are the paper's; the others are chosen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from calm.data.store.text import clean, escape_markers

IMAGE_TOKEN = "<image>"  # where a photograph's tokens go, once per photograph
SCORE_RANGE = (1.0, 10.0)  # of every score in words, as AVA's; other scales are mapped onto it
SCORE_PROMPT = "Can you give me the aesthetic score?"
COMMENT_PROMPT = "Can you comment on the aesthetics of this photograph?"
CAPTION_PROMPT = "What does this photograph show?"
SUGGESTION_PROMPT = "How could this photograph be improved?"
PERSONAL_PROMPT = "Can you give me the aesthetic score that this person would give?"
PROMPTS = {  # what evaluation and commands ask; training may ask in other words too (data/texts/prompts.parquet)
    "caption": CAPTION_PROMPT,
    "comment": COMMENT_PROMPT,
    "score": SCORE_PROMPT,
    "personal": PERSONAL_PROMPT,
    "suggestion": SUGGESTION_PROMPT,
}
MAX_ANSWER = 400  # characters

_NUMBER = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)(?!\w)")

Message = dict[str, str]


def as_public(prompt: str, public: str | None) -> str:
    """A prompt for a score, meant as the raters of a dataset give it; None: of the public that is asked by default."""
    return prompt if public is None else f"{prompt} Answer as the raters of {public} would."


def messages(prompt: str) -> list[Message]:
    """One photograph and a prompt."""
    return [{"role": "user", "content": f"{IMAGE_TOKEN}\n{prompt}"}]


def personal_messages(scores: Sequence[float]) -> list[Message]:
    """A rater's photographs with the scores they gave, then the photograph in question: len(scores) + 1 photographs.

    Personalised scoring in context; `scores` are on SCORE_RANGE.
    """
    turns: list[Message] = []
    for score in scores:
        turns += [*messages(PERSONAL_PROMPT), {"role": "assistant", "content": format_score(score)}]
    return [*turns, *messages(PERSONAL_PROMPT)]


def format_score(score: float) -> str:
    """One decimal and a full stop, as the paper writes scores: 6.53 -> "6.5."."""
    if not math.isfinite(score):
        raise ValueError(f"a score must be a finite number, found {score}")
    return f"{score:.1f}."


def parse_score(text: str) -> float | None:
    """The first number of an answer, if it lies on SCORE_RANGE; None if there is none or it does not."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    score = float(found.group(1))
    return score if SCORE_RANGE[0] <= score <= SCORE_RANGE[1] else None


def rescale(score: float, score_min: float, score_max: float) -> float:
    """Map a score linearly from its own scale onto SCORE_RANGE."""
    low, high = SCORE_RANGE
    return low + (score - score_min) * (high - low) / (score_max - score_min)


def safe_answer(text: str) -> str:
    """A text that people wrote as an answer: cleaned, cut at a word's end, special tokens made harmless."""
    return escape_markers(clean(text, MAX_ANSWER))
