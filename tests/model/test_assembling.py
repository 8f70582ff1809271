"""Parts keep the weights they came with; checkpoints hold what was trained, and refuse other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from calm.instructions import SCORE_PROMPT, messages
from calm.model import build
from calm.model.build import (
    ADAPTER,
    Assembly,
    CheckpointError,
    add_lora,
    assemble,
    calm_config,
    load_adapter,
    load_complete,
    load_config,
    load_trained,
    save_adapter,
    save_complete,
    save_trained,
)
from calm.model.parts import LANGUAGE
from calm.model.pretrained import load_language, load_vision
from calm.model.settings import LoRATuning, Runtime
from tests import tiny

LORA = LoRATuning(kind="lora", layers="all", r=2, alpha=4, dropout=0.0)
CPU = Runtime(device="cpu", dtype="float32")


def equal_bits(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    return all(mine[k].dtype == theirs[k].dtype and torch.equal(mine[k], theirs[k]) for k in mine)


def outputs(assembly: Assembly, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    prompt = assembly.processor.prompt(messages(SCORE_PROMPT))
    ids = assembly.processor.tokenizer(prompt, return_tensors="pt").input_ids.expand(len(pixels), -1)
    with torch.inference_mode():
        found = assembly.model(input_ids=ids, pixel_values=pixels)
    return found.logits, found.score


def stir_adapter(model: torch.nn.Module) -> None:
    """A fresh adapter's second factor is zero: it would change nothing."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_assembling_leaves_the_parts_as_they_were_loaded(tiny_template: Any, dtype: str) -> None:
    params = tiny_template.params(runtime__dtype=dtype)
    model = assemble(params).model
    number = torch.float32 if dtype == "float32" else torch.bfloat16
    assert equal_bits(model.language_model, load_language(params.parts.language, number).model)
    assert equal_bits(model.vision_tower, load_vision(params.parts.vision, number).model)
    assert {parameter.dtype for parameter in model.mfam.parameters()} == {torch.float32}


def test_fresh_weights_depend_on_the_seed_alone(tiny_template: Any) -> None:
    params = tiny_template.params()
    one = assemble(params).model
    torch.manual_seed(99)
    assert equal_bits(one, assemble(params).model)
    assert not equal_bits(one.mfam, assemble(tiny_template.params(seed=18)).model.mfam)


def test_everything_is_frozen_until_a_stage_says_otherwise(assembly: Assembly) -> None:
    assert not any(parameter.requires_grad for parameter in assembly.model.parameters())
    assert not assembly.model.training


def test_planning_writes_into_no_shared_configuration(tiny_template: Any) -> None:
    params = tiny_template.params()
    known = LANGUAGE["lmsys/vicuna-7b-v1.5"].config
    assert known is not None
    before = known.to_dict()
    config = calm_config(params, text_config=known)
    config.text_config.vocab_size = 1
    assert known.to_dict() == before
    assert assemble(params).model.language_model.config._attn_implementation == "sdpa"


def test_placeholders_lie_outside_the_language_models_vocabulary(assembly: Assembly) -> None:
    config = assembly.model.config
    assert min(config.placeholder_token_ids) >= config.text_config.vocab_size
    assert len(set(config.placeholder_token_ids)) == 5
    assert [assembly.processor.tokenizer.decode([i]) for i in config.digit_token_ids] == list("0123456789")


def test_a_whole_model_comes_back_bit_for_bit(tiny_template: Any, pixels: torch.Tensor, tmp_path: Path) -> None:
    assembly = assemble(tiny_template.params(runtime__dtype="bfloat16"))
    save_complete(tmp_path, assembly, None)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto").eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert model.language_model.dtype == torch.bfloat16 and model.mfam.thematic.weight.dtype == torch.float32
    assert equal_bits(assembly.model, model)
    again = Assembly(model, processor, assembly.preprocessing)
    for mine, theirs in zip(outputs(assembly, pixels), outputs(again, pixels), strict=True):
        assert torch.equal(mine, theirs)
    assert processor.image_processor.size == assembly.processor.image_processor.size
    assert list(processor.image_processor.image_mean) == list(assembly.preprocessing.mean)
    assert processor.placeholders == assembly.processor.placeholders


def test_a_whole_model_can_be_read_in_another_number_format(assembly: Assembly, tmp_path: Path) -> None:
    save_complete(tmp_path, assembly, None)
    read = load_complete(tmp_path, Runtime(device="cpu", dtype="bfloat16"))
    assert read.model.language_model.dtype == torch.bfloat16
    assert read.preprocessing == assembly.preprocessing


def test_the_pipeline_of_transformers_answers_about_a_picture(assembly: Assembly, tmp_path: Path) -> None:
    save_complete(tmp_path, assembly, None)
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": tiny.picture(0)}, {"type": "text", "text": SCORE_PROMPT}],
        }
    ]
    answer = pipeline("image-text-to-text", model=str(tmp_path))(
        text=chat, max_new_tokens=3, do_sample=False, return_full_text=False
    )
    prompt = assembly.processor(
        text=assembly.processor.tokenizer.apply_chat_template(
            chat, chat_template=assembly.processor.chat_template, tokenize=False, add_generation_prompt=True
        ),
        images=[tiny.picture(0)],
        return_tensors="pt",
    )
    ids = assembly.model.generate(**prompt, max_new_tokens=3, do_sample=False)
    own = assembly.processor.tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer[0]["generated_text"] == own
    trained_on = assembly.processor.prompt(messages(SCORE_PROMPT))
    assert prompt["input_ids"].tolist() == assembly.processor.tokenizer([trained_on]).input_ids


def test_a_saved_model_holds_safetensors_and_nothing_that_runs_code(assembly: Assembly, tmp_path: Path) -> None:
    adapter = add_lora(assembly.model, LORA, seed=0)
    save_complete(tmp_path, assembly, adapter)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pth", ".pkl", ".pickle", ".py"}


def test_an_adapters_files_do_not_depend_on_the_process_that_wrote_them(assembly: Assembly, tmp_path: Path) -> None:
    """Sets of strings come in another order in every process."""
    save_adapter(tmp_path, add_lora(assembly.model, LORA, seed=0))
    modules = json.loads((tmp_path / ADAPTER / "adapter_config.json").read_text())["target_modules"]
    assert len(modules) > 1
    assert modules == sorted(modules)


def test_the_adapter_saved_apart_equals_the_merged_model(
    tiny_template: Any, assembly: Assembly, pixels: torch.Tensor, tmp_path: Path
) -> None:
    plain = outputs(assembly, pixels)[0]
    adapter = add_lora(assembly.model, LORA, seed=0)
    stir_adapter(assembly.model)
    save_complete(tmp_path, assembly, adapter)
    merged = outputs(load_complete(tmp_path, CPU), pixels)[0]
    apart = assemble(tiny_template.params(), assembly.model.config.attribute_states)
    apart.model.mfam.load_state_dict(assembly.model.mfam.state_dict())
    assert load_adapter(apart.model, tmp_path, trainable=False) is not None
    torch.testing.assert_close(outputs(apart, pixels)[0], merged, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, merged, atol=1e-2)


def test_lora_sits_on_every_linear_layer_but_the_head(assembly: Assembly) -> None:
    add_lora(assembly.model, LORA, seed=0)
    adapted = {
        name.split(".lora_A")[0].split(".")[-1] for name, _ in assembly.model.named_parameters() if "lora_A" in name
    }
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    trainable = {name for name, parameter in assembly.model.named_parameters() if parameter.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)


def test_a_stage_checkpoint_comes_back_bit_for_bit(tiny_template: Any, assembly: Assembly, tmp_path: Path) -> None:
    names = [name for name in assembly.model.state_dict() if name.startswith("mfam.")]
    save_trained(tmp_path, assembly.model, names)
    other = assemble(tiny_template.params(seed=18), assembly.model.config.attribute_states)
    assert not equal_bits(assembly.model.mfam, other.model.mfam)
    assert load_trained(tmp_path, other.model) == sorted(names)
    assert equal_bits(assembly.model.mfam, other.model.mfam)
    assert load_config(tmp_path).to_dict() == assembly.model.config.to_dict()


def test_the_parts_a_checkpoint_was_trained_from_are_in_it(assembly: Assembly, tmp_path: Path) -> None:
    save_trained(tmp_path, assembly.model, [])
    parts = load_config(tmp_path).provenance
    assert set(parts) == {"vision", "language", "text"}
    assert all(set(part) == {"name", "source", "sha256"} for part in parts.values())


@pytest.mark.parametrize(
    "tensors",
    [{"mfam.thematic.weight": torch.zeros(1, 1)}, {"mfam.no_such_layer": torch.zeros(1)}],
    ids=["shape", "name"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_tensor(
    assembly: Assembly, tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    save_file(tensors, tmp_path / build.TRAINED)
    before = {name: value.clone() for name, value in assembly.model.state_dict().items()}
    with pytest.raises(CheckpointError, match=next(iter(tensors))):
        load_trained(tmp_path, assembly.model)
    assert all(torch.equal(value, before[name]) for name, value in assembly.model.state_dict().items())


def test_missing_checkpoints_say_what_to_run(assembly: Assembly, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="dvc repro"):
        load_trained(tmp_path / "nothing", assembly.model)
    with pytest.raises(CheckpointError, match="dvc repro"):
        load_config(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="make repro"):
        load_complete(tmp_path / "nothing", CPU)
    assembly.model.config.score_mean = False  # as an earlier calm has left it
    save_complete(tmp_path / "earlier", assembly, None)
    with pytest.raises(
        CheckpointError, match="an earlier calm has trained this model: train it again with `dvc repro`"
    ):
        load_complete(tmp_path / "earlier", CPU)


def test_a_damaged_model_and_one_of_others_are_told_for_what_they_are(assembly: Assembly, tmp_path: Path) -> None:
    save_complete(tmp_path, assembly, None)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, said = weights.read_bytes(), config.read_bytes()
    tensors = load_file(weights)
    bias = tensors.pop("score_head.language.bias")

    def refused(reason: str) -> None:
        with pytest.raises(CheckpointError, match=reason) as told:
            load_complete(tmp_path, CPU)
        assert str(told.value).startswith(str(tmp_path)) and "\n" not in str(told.value)

    save_file(tensors, weights, metadata={"format": "pt"})
    refused(r"another model's: they lack score_head\.language\.bias")
    save_file(tensors | {"score_head.language.bias": bias.repeat(2)}, weights, metadata={"format": "pt"})
    refused("weights damaged, or another model's")
    weights.write_bytes(whole[: len(whole) // 2])
    refused("weights damaged, or another model's: Error while deserializing")
    for other in (said[: len(said) // 2], b'{"model_type": "bert"}', b"[]"):
        config.write_bytes(other)
        refused(r"config\.json: not the configuration of a CALM")
