"""Photographs and prompts become what the model reads, one way only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.image_utils import PILImageResampling

from calm.instructions import SCORE_PROMPT, messages
from calm.model.build import Assembly
from calm.model.configuration import PLACEHOLDERS
from calm.model.parts import VICUNA
from calm.model.processing import (
    CLIP_MEAN,
    CLIP_STD,
    CalmImageProcessor,
    CalmProcessor,
    PartError,
    Preprocessing,
    Resampling,
    add_placeholders,
    byte_pixels,
    normalise,
)
from tests import tiny

CLIP = Preprocessing(64, CLIP_MEAN, CLIP_STD)


@pytest.mark.parametrize("resampling", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (96, 80), (200, 70), (40, 30)])
def test_tensors_and_files_are_normalised_alike(size: tuple[int, int], resampling: Resampling) -> None:
    """Edits work on tensors, people bring files; 8-bit rounding after scaling is all that may differ."""
    image, expected = tiny.picture(3, size), Preprocessing(64, CLIP_MEAN, CLIP_STD, resampling)
    processor = CalmImageProcessor.of(expected)
    assert Preprocessing.of(processor) == expected
    file = processor([image], return_tensors="pt")["pixel_values"]
    tensor = normalise(byte_pixels(image).unsqueeze(0) / 255, expected)
    assert file.shape == tensor.shape == (1, 3, 64, 64)
    half_a_step = 1 / 255 / min(CLIP_STD)
    assert (file - tensor).abs().max() <= 2 * half_a_step
    assert (file - tensor).abs().mean() <= 0.5 * half_a_step


def test_an_encoder_with_another_filter_is_refused() -> None:
    with pytest.raises(PartError, match="resamples by lanczos"):
        Preprocessing.of(CalmImageProcessor(resample=PILImageResampling.LANCZOS))


def test_the_whole_frame_is_kept() -> None:
    """A mark in every corner of an oblong picture is still there."""
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:20, :60] = pixels[:20, -60:] = pixels[-20:, :60] = pixels[-20:, -60:] = 255
    values = CalmImageProcessor.of(CLIP)([Image.fromarray(pixels)], return_tensors="pt")["pixel_values"][0, 0]
    corners = torch.stack([values[3, 3], values[3, -4], values[-4, 3], values[-4, -4]])
    assert (corners > values[32, 32] + 2).all()


def test_grey_and_transparent_pictures_are_taken_as_colour() -> None:
    processor = CalmImageProcessor.of(CLIP)
    for mode in ("L", "RGBA"):
        assert processor([tiny.picture(0).convert(mode)], return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)


def test_every_image_token_becomes_the_placeholders_of_one_photograph(assembly: Assembly) -> None:
    processor = assembly.processor
    low, middle, high, thematic, words = PLACEHOLDERS
    seen = low * 2 + middle * 2 + high * 2 + thematic * (1 + len(tiny.CONTENT))
    assert processor.placeholders == seen + words * (2 * 40)
    prompt = processor.prompt(messages(SCORE_PROMPT))
    assert "<image>" not in prompt
    assert prompt.count(processor.placeholders) == 1
    assert prompt.endswith(f"{SCORE_PROMPT}<|im_end|>\n<|im_start|>assistant\n")


def test_prompts_of_the_processor_and_of_training_are_the_same(assembly: Assembly) -> None:
    processor = assembly.processor
    own = processor.tokenizer(processor.prompt(messages(SCORE_PROMPT))).input_ids
    text = processor.tokenizer.apply_chat_template(
        messages(SCORE_PROMPT), chat_template=processor.chat_template, tokenize=False, add_generation_prompt=True
    )
    called = processor(text=text, images=[tiny.picture(0)], return_tensors="pt")
    assert called["input_ids"].tolist() == [own]
    assert called["pixel_values"].shape == (1, 3, tiny.SIDE, tiny.SIDE)


def test_vicunas_template_is_the_one_it_was_tuned_with() -> None:
    words = tiny.tokenizer()
    chat = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Score?"}]},
    ]
    text = words.apply_chat_template(chat, chat_template=VICUNA, tokenize=False, add_generation_prompt=True)
    assert text == "USER: Hello ASSISTANT: Hi</s>USER: <image>\nScore? ASSISTANT:"


def test_placeholders_follow_an_embedding_that_is_longer_than_its_tokenizer() -> None:
    """As Qwen3's is."""
    words: PreTrainedTokenizerFast = tiny.tokenizer()
    before = len(words)
    assert add_placeholders(words, 1000) == [1000, 1001, 1002, 1003, 1004]
    assert words.convert_ids_to_tokens(before) == f"<unused{before}>"
    said = words(f"<unused{before}>", split_special_tokens=True).input_ids
    assert max(said) < before  # in data they are plain text


def test_a_tokenizer_that_knows_a_placeholder_is_refused() -> None:
    words: PreTrainedTokenizerFast = tiny.tokenizer()
    words.add_tokens([PLACEHOLDERS[-1]])
    with pytest.raises(ValueError, match="inside a vocabulary of"):
        add_placeholders(words, len(words))


def test_a_model_that_can_think_first_is_asked_not_to() -> None:
    words: PreTrainedTokenizerFast = tiny.tokenizer()
    add_placeholders(words, len(words))
    thinking = (
        "{% for message in messages %}{{ message['content'] }}{% endfor %}"
        "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    )
    processor = CalmProcessor(CalmImageProcessor.of(CLIP), words, chat_template=thinking, queries=1, thematic_tokens=1)
    assert processor.prompt(messages(SCORE_PROMPT)).endswith("<think></think>")
