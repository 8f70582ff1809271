"""Texts are seeded, varied, fluent in form, and speak of their own state only."""

import re

import pytest

from calm.attributes.edits import Edit, draw_edits
from calm.attributes.grammar import (
    MAX_WORDS,
    STANDINGS,
    all_guidance,
    clauses,
    comment,
    degree,
    leads,
    openings,
    standing_at,
    standing_of,
)
from calm.attributes.taxonomy import Attribute, State, taxonomy
from calm.seeds import stream

STATES = [(attribute, state) for attribute in taxonomy().attributes for state in attribute.all_states]
IDS = [f"{attribute.name}-{state.name}" for attribute, state in STATES]


def names(label: str, text: str) -> bool:
    """Whether a text contains a state's label as words."""
    return re.search(rf"\b{label}\b", text.lower().replace("-", " ")) is not None


def well_formed(text: str) -> bool:
    """Capital first, full stop last, no empty slots, doubled blanks or wrong articles."""
    doubled = re.search(r"[{}]|  |\.\.|\b(\w+) \1\b|\b[Aa] [aeio]", text)
    return text[0].isupper() and text.endswith(".") and doubled is None


@pytest.mark.parametrize(("attribute", "state"), STATES, ids=IDS)
def test_guidance_is_varied_and_well_formed(attribute: Attribute, state: State) -> None:
    texts = all_guidance(attribute.name, state.name)
    assert len(texts) == len(set(texts)) >= 32
    for text in texts:
        assert well_formed(text), text
        assert len(text.split()) <= 40, text


@pytest.mark.parametrize(("attribute", "state"), STATES, ids=IDS)
def test_no_text_names_a_state_of_another_attribute(attribute: Attribute, state: State) -> None:
    labels = [other.label for one in taxonomy().attributes if one is not attribute for other in one.states]
    for text in all_guidance(attribute.name, state.name):
        assert not [label for label in labels if names(label, text)], text


def test_no_text_serves_two_states() -> None:
    owners: dict[str, str] = {}
    for attribute, state in STATES:
        for text in all_guidance(attribute.name, state.name):
            name = f"{attribute.name}.{state.name}"
            assert owners.setdefault(text, name) == name, text
    remedies = [remedy for _, state in STATES for remedy in state.remedies]
    assert len(set(remedies)) == len(remedies)


def test_a_share_of_the_guidance_includes_the_remedy() -> None:
    for attribute, state in STATES:
        if state.edit is None:
            continue
        texts = all_guidance(attribute.name, state.name)
        share = sum(any(remedy in text for remedy in state.remedies) for text in texts) / len(texts)
        assert 0.3 < share < 0.95, (state.name, share)


def test_the_same_stream_gives_the_same_text() -> None:
    edits = draw_edits(stream(1, "edits"), 2, taxonomy())
    one, again = (comment(edits, stream(5, "comment")) for _ in range(2))
    assert one == again
    assert len({comment(edits, stream(5, "comment", index)) for index in range(50)}) > 20


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_comments_have_the_length_and_form_of_short_reviews(count: int) -> None:
    for index in range(300):
        rng = stream(2, "form", count, index)
        text = comment(draw_edits(rng, count, taxonomy()), rng)
        assert well_formed(text), text
        assert 10 <= len(text.split()) <= MAX_WORDS + 3, text
        assert 1 <= len(re.findall(r"\.(?: |$)", text)) <= 3, text


def test_comments_name_what_is_wrong_worst_first() -> None:
    worst, slight = Edit("sharpness", "blurred", 1.0, 1), Edit("temperature", "warm", 0.1, 1)
    for index in range(40):
        text = comment([slight, worst], stream(3, "worst", index))
        states = [taxonomy().attribute(edit.attribute).state(edit.state) for edit in (worst, slight)]
        places = [
            min(text.lower().find(said) for said in sayings if said in text.lower())
            for sayings in (
                [state.nouns[0].lower(), *(wording.lower() for phrase in state.phrases for wording in wordings(phrase))]
                for state in states
            )
        ]
        assert places == sorted(places), text


def wordings(phrase: str) -> list[str]:
    """Every way in which a phrase can appear in a comment."""
    return list({degree(phrase, severity, stream(1, "w", index)) for severity in (0, 0.5, 1) for index in range(12)})


def test_unedited_photographs_are_praised_only() -> None:
    labels = [state.label for attribute in taxonomy().attributes for state in attribute.states]
    for index in range(100):
        text = comment([], stream(4, "praise", index))
        assert not [label for label in labels if names(label, text)], text


def test_a_flaw_and_what_undoes_it_follow_a_lead_of_the_grammar() -> None:
    assert "It suffers from" in leads("noun") and "It would help to" in leads("remedy")
    state = taxonomy().attribute("contrast").state("harsh")
    for index in range(100):
        said = comment([Edit("contrast", "harsh", 0.9, 0)], stream(7, "leads", index))
        for slot, words in (("clause", clauses(state)), ("noun", state.nouns[:1]), ("remedy", state.remedies)):
            for lead in leads(slot):
                after = said.partition(f"{lead} ")[2]
                assert not after or after.startswith(tuple(words)), said


def test_a_verdict_is_read_off_its_comment_and_no_opening_serves_two() -> None:
    begun = [(standing, opening) for standing in STANDINGS for opening in openings(standing)]
    for standing, opening in begun:
        assert [one for one, other in begun if other.startswith(opening) or opening.startswith(other)] == [standing]
    for index in range(200):
        rng = stream(7, "verdict", index)
        for standing in STANDINGS:
            text = comment([], rng, standing=standing)
            assert well_formed(text) and standing_of(text) == standing, text
        assert standing_of(comment(draw_edits(rng, 1 + index % 3, taxonomy()), rng)) is None
    assert [standing_at(share) for share in (0.0, 0.24, 0.25, 0.75, 0.76)] == ["low", "low", "middle", "middle", "high"]


def test_praise_beside_a_flaw_never_concerns_what_an_edit_touched() -> None:
    edit = Edit("key", "low_key", 1.0, 1)
    barred = [
        one for one in taxonomy().attributes if one.touches & taxonomy().attribute("key").state("low_key").touches
    ]
    for index in range(200):
        text = comment([edit], stream(6, "beside", index))
        assert not [phrase for one in barred for phrase in one.unchanged.phrases if phrase in text], text


def test_words_of_degree_follow_severity() -> None:
    assert degree("it is {very} odd", None) == "it is odd"
    assert [degree("it is {very} odd", severity) for severity in (0.1, 0.5, 0.9)] == [
        "it is slightly odd",
        "it is clearly odd",
        "it is very odd",
    ]
    assert degree("a {very} odd thing, {too} odd", None) == "an odd thing, too odd"
