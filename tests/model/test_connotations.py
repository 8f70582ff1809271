"""What the language model has to say of the classes that the visual encoder recognises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.model.connotations import Vocabulary, connotations, vocabulary
from calm.model.parts.pretrained import Language, load_language


@pytest.fixture(scope="module")
def smollm() -> Language:
    return load_language("smollm2-135m-instruct", torch.float32)


def test_every_word_is_one_token_of_smollm2_and_stands_once(smollm: Language) -> None:
    words = vocabulary().words
    assert len(set(words)) == len(words)
    assert [word for word in words if len(smollm.tokenizer(f" {word}").input_ids) > 1] == []
    assert all(template.count("{}") == 1 for template in vocabulary().templates)


def test_beaches_are_serene_and_bins_are_dirty(smollm: Language) -> None:
    said = Vocabulary(vocabulary().templates, ("serene", "dirty", "delicious"))
    beach, bin_, pizza = connotations(smollm, ["seashore, coast", "ashcan, trash can", "pizza"], said)
    assert beach[0] > bin_[0] and bin_[1] > beach[1]
    assert pizza[2] > max(beach[2], bin_[2])


def test_likelihoods_are_those_of_each_prompt_read_alone(tiny_template: Any) -> None:
    language = load_language(tiny_template.params().parts.language, torch.float32)
    said = Vocabulary(("the {} is", "what a {}"), ("light", "dark"))
    classes = ["tench, Tinca tinca", "a very long name of a class, another", "sky"]
    expected = torch.zeros(3, 2)
    for row, name in enumerate(("tench", "a very long name of a class", "sky")):
        for template in said.templates:
            ids = language.tokenizer(template.format(name), return_tensors="pt").input_ids
            with torch.no_grad():
                shares = language.model(ids).logits[0, -1].log_softmax(-1)
            for column, word in enumerate(said.words):
                expected[row, column] += shares[language.tokenizer(f" {word}").input_ids[0]] / 2
    torch.testing.assert_close(connotations(language, classes, said), expected)
