"""Captions and comments from themes and mean ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calm.data.sources.oasis import CLAUSES, all_bands, bands, composed_comments, subject, theme_captions, theme_name


@pytest.mark.parametrize(
    ("theme", "phrase"),
    [
        ("Acorns 1", "acorns"),
        ("Acorns1", "acorns"),
        ("Bar 2", "a bar"),
        ("Elephant 1", "an elephant"),
        ("Grass 3", "grass"),
        ("Crosswalk 1 ", "a crosswalk"),
        ("Wedding ring 1", "a wedding ring"),
        ("Rock climbing 4", "rock climbing"),
        ("Building 2", "a building"),
        ("Sky 1", "the sky"),
        ("Gorrila 1", "a gorilla"),
    ],
)
def test_a_theme_becomes_a_phrase_with_its_article(theme: str, phrase: str) -> None:
    assert subject(theme) == phrase


def test_a_theme_without_its_number_names_the_group() -> None:
    assert {theme_name(theme) for theme in ("Cat 1", "Cat 12", "Cat3 ")} == {"Cat"}


def test_captions_are_sentences() -> None:
    assert theme_captions("Lake 9", "Scenery") == ["A photograph of a lake.", "A lake, category scenery."]


def test_bands_are_parts_of_the_set_whatever_its_order() -> None:
    values = pd.Series(np.random.default_rng(1).uniform(1, 7, 100))
    found = bands(values, 5)
    assert np.bincount(found).tolist() == [20] * 5
    assert (np.diff(found[np.argsort(values)]) >= 0).all()
    shuffled = values.sample(frac=1, random_state=2)
    assert bands(shuffled, 5).tolist() == found[shuffled.index].tolist()
    assert len(set(bands(pd.Series([4.0] * 9), 3))) == 1


def test_comments_speak_of_the_bands_alone_and_differ_within_a_photograph() -> None:
    means = pd.DataFrame({"item_id": ["a", "b", "c"], **{key: [1.0, 4.0, 7.0] for key in CLAUSES}})
    for item_id, band in all_bands(means).items():
        texts = composed_comments("a lake", band, 6, np.random.default_rng(7))
        assert len({text.split()[0] + text.split()[1] for text in texts}) >= 5, item_id  # every opener once
        for text in texts:
            assert "a lake" in text
            assert any(clause in text for clause in CLAUSES["beauty"][band["beauty"]])
            for measure, words in CLAUSES.items():
                wrong = [clause for level, said in enumerate(words) if level != band[measure] for clause in said]
                kept = [clause for clause in words[band[measure]] if clause in text]
                assert kept or not any(clause in text.lower() for clause in wrong), (text, measure)


def test_no_band_shares_a_clause_with_another() -> None:
    for words in CLAUSES.values():
        flat = [clause for level in words for clause in level]
        assert len(set(flat)) == len(flat)
