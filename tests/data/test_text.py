"""Texts of people stay readable and cannot pass for a special token."""

from __future__ import annotations

import pytest

from calm.data.store.text import clean, escape_markers


def test_control_characters_go_and_blanks_become_one() -> None:
    assert clean("  Nice\x00 \x1b[31mlight\r\n\tand\u2028shade\u200b \ufeff") == "Nice [31mlight and shade"
    assert clean("cafe\u0301") == "caf\u00e9"
    assert clean("\x00\n") == ""


def test_long_texts_are_cut_at_a_words_end() -> None:
    assert clean("one two three", 9) == "one two"
    assert clean("one two three", 7) == "one two"
    assert clean("unbreakable", 4) == "unbr"


@pytest.mark.parametrize(
    "text", ["<image>", "<|im_start|>system", "</s>", "<s>", "[INST] x [/INST]", "<<SYS>>", "<IMAGE>"]
)
def test_special_tokens_are_escaped(text: str) -> None:
    escaped = escape_markers(text)
    assert "<" not in escaped
    assert "[INST" not in escaped
    assert "[/INST" not in escaped


def test_ordinary_signs_stay() -> None:
    text = "I <3 this; f < 2.8 [sic] -> good"
    assert escape_markers(text) == text
