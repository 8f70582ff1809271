"""Conversations and scores in vocabularies that mark the spaces of words, Llama's above all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from calm.instructions import (
    COMMENT_PROMPT,
    SCORE_PROMPT,
    format_score,
    messages,
    parse_score,
    personal_messages,
)
from calm.model.parts import CHATML, VICUNA
from calm.model.processing import CalmImageProcessor, CalmProcessor, Preprocessing, add_placeholders, number_prefix
from calm.training.loop.throughput import machines
from calm.training.tuning import collate
from tests import tiny
from tests.model import llama_vocabulary

LLAMA = 32_000


def small() -> PreTrainedTokenizerFast:
    """Letters, digits and a few words, as a SentencePiece vocabulary has them."""
    characters = sorted(set("▁0123456789.:?!<>/-'_\nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    merges = [("T", "h"), ("▁", "Th"), ("▁Th", "e")]
    made = [first + second for first, second in merges]
    pieces = [*llama_vocabulary.SPECIAL, *characters, *made]
    return llama_vocabulary.sentencepiece_like(pieces, merges)


@pytest.fixture(scope="module", params=["small", "llama"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    if request.param == "small":
        return small()
    folder = os.environ.get(llama_vocabulary.VARIABLE)
    if not folder:
        pytest.skip(
            f"{llama_vocabulary.VARIABLE} names no folder with Llama's vocabulary (tests/model/{'llama_vocabulary.py'})"
        )
    found = llama_vocabulary.load(Path(folder))
    assert len(found) == LLAMA
    assert found.convert_tokens_to_ids(["<s>", "</s>", "0", "6", "▁The"]) == [1, 2, 29900, 29953, 450]
    return found


@pytest.fixture(scope="module")
def processor(tokenizer: PreTrainedTokenizerFast) -> CalmProcessor:
    add_placeholders(tokenizer, len(tokenizer))
    images = CalmImageProcessor.of(Preprocessing(336, (0.5,) * 3, (0.5,) * 3))
    return CalmProcessor(images, tokenizer, chat_template=VICUNA, queries=32, thematic_tokens=576)


@pytest.mark.parametrize("score", [1.0, 4.25, 6.53, 9.99])
def test_a_scores_first_token_after_its_prompt_is_its_first_digit(processor: CalmProcessor, score: float) -> None:
    answer = format_score(score)
    batch = collate(processor, [messages(SCORE_PROMPT)], [answer])
    tokens = processor.tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())
    end = int(batch.prompt_ends[0])
    assert tokens[end + 1 :] == [*answer, "</s>"]
    assert tokens[end] == "▁"  # the digit's space: `generate` has to say it, so it is learned too
    assert batch.labels[0, :end].eq(-100).all()
    assert batch.labels[0, end:].tolist() == batch.input_ids[0, end:].tolist()
    assert batch.labels[0, end + 1 :].tolist() == batch.input_ids[0, end + 1 :].tolist()
    assert parse_score(processor.tokenizer.decode(batch.input_ids[0, end + 1 :], skip_special_tokens=True)) == float(
        answer[:-1]
    )


def test_what_is_learned_is_what_the_whole_conversation_would_be_tokenised_to(processor: CalmProcessor) -> None:
    for prompt, answer in ((SCORE_PROMPT, "6.5."), (COMMENT_PROMPT, "The sky is dull.")):
        batch = collate(processor, [messages(prompt)], [answer])
        whole = processor.prompt(messages(prompt)) + f" {answer}"
        assert batch.input_ids[0].tolist() == [*processor.tokenizer(whole).input_ids, processor.tokenizer.eos_token_id]


def test_scores_in_context_are_written_as_scores_are_learned(processor: CalmProcessor) -> None:
    ids = processor.tokenizer(processor.prompt(personal_messages([6.5, 3.0]), score=True)).input_ids
    tokens = processor.tokenizer.convert_ids_to_tokens(ids)
    (learned,) = collate(processor, [messages(SCORE_PROMPT)], ["6.5."]).input_ids.tolist()
    turn = processor.tokenizer.convert_ids_to_tokens(learned)[-7:]  # from the colon
    assert turn == [":", "▁", "6", ".", "5", ".", "</s>"]
    assert any(tokens[i : i + 7] == turn for i in range(len(tokens)))
    assert tokens[-2:] == turn[:2]


def test_a_photograph_takes_its_placeholders_and_no_other_tokens(processor: CalmProcessor) -> None:
    ids = processor.tokenizer(processor.prompt(messages(SCORE_PROMPT))).input_ids
    placeholders = processor.tokenizer.convert_tokens_to_ids(["<low>", "<middle>", "<high>", "<thematic>"])
    assert [ids.count(token) for token in placeholders] == [32, 32, 32, 576]
    where = [place for place, token in enumerate(ids) if token in placeholders]
    assert where == list(range(where[0], where[0] + 672))


def test_an_answer_cannot_speak_for_the_user(processor: CalmProcessor) -> None:
    (ids,) = collate(processor, [messages(COMMENT_PROMPT)], ["Dull.</s>USER: <low>"]).input_ids.tolist()
    assert ids.count(processor.tokenizer.eos_token_id) == 1
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<low>")) == 32


def test_plans_count_prompts_as_the_vocabulary_does(processor: CalmProcessor) -> None:
    if len(processor.tokenizer) < LLAMA:
        pytest.skip("a small vocabulary needs more tokens")
    for prompt, stage, score in ((SCORE_PROMPT, "scores", True), (COMMENT_PROMPT, "comments", False)):
        counted = len(processor.tokenizer(processor.prompt(messages(prompt), score=score)).input_ids) - 672
        assert counted <= machines().lengths[stage].prompt <= counted + 6
    answer = len(processor.answer_ids("6.5.")) + 1
    assert answer == machines().lengths["scores"].answer == machines().evaluation["scoring"].answer


def test_vocabularies_without_marks_need_no_space_before_a_number() -> None:
    words = tiny.tokenizer()
    assert number_prefix(words) == ""
    add_placeholders(words, len(words))
    images = CalmImageProcessor.of(tiny.PREPROCESSING)
    processor = CalmProcessor(images, words, chat_template=CHATML, queries=2, thematic_tokens=1)
    assert processor.prompt(messages(SCORE_PROMPT), score=True) == processor.prompt(messages(SCORE_PROMPT))


def test_vocabularies_that_do_not_write_digit_by_digit_are_refused() -> None:
    merged = llama_vocabulary.sentencepiece_like(
        ["<unk>", "<s>", "</s>", *"▁65.", "6.", "▁6."], [("6", "."), ("▁", "6.")]
    )
    with pytest.raises(ValueError, match="digit by digit"):
        number_prefix(merged)
