"""What transformers' users do with any image-text model, done with this one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

from calm.instructions import COMMENT_PROMPT, SCORE_PROMPT, messages
from calm.model.build import ADAPTER
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.processing import CalmProcessor
from tests import tiny

PROMPTS = [SCORE_PROMPT, COMMENT_PROMPT]


@pytest.fixture(scope="module")
def folder(trained_template: Any) -> Path:
    found: Path = trained_template.layout.finetuned("scores")
    return found


@pytest.fixture(scope="module")
def processor(folder: Path) -> CalmProcessor:
    return CalmProcessor.from_pretrained(folder)


def load(folder: Path, **options: Any) -> CalmForConditionalGeneration:
    return CalmForConditionalGeneration.from_pretrained(folder, **options).eval()


def said(processor: CalmProcessor, turns: list[dict[str, str]]) -> str:
    """The chat template's text, with <image> where a photograph goes."""
    text: str = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text


def inputs(processor: CalmProcessor, *prompts: str, photographs: int = 1) -> Any:
    """Prompts about a photograph each, padded on the left."""
    texts = [said(processor, messages(prompt)) for prompt in prompts]
    return processor(text=texts, images=tiny.pictures(len(prompts) * photographs), padding=True, return_tensors="pt")


def test_labels_that_hold_placeholders_are_masked(folder: Path, processor: CalmProcessor) -> None:
    model, batch = load(folder), inputs(processor, SCORE_PROMPT)
    masked = batch["input_ids"].masked_fill(
        torch.isin(batch["input_ids"], torch.tensor(model.config.placeholder_token_ids)), -100
    )
    with torch.inference_mode():
        naive, careful = (model(**batch, labels=labels).loss for labels in (batch["input_ids"], masked))
    assert torch.isfinite(naive) and torch.equal(naive, careful)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cast", [False, True])
def test_half_formats_read_and_write(folder: Path, processor: CalmProcessor, dtype: torch.dtype, cast: bool) -> None:
    model = load(folder).to(dtype) if cast else load(folder, dtype=dtype)
    batch = inputs(processor, SCORE_PROMPT)
    with torch.inference_mode():
        found, exact = (one(**batch) for one in (model, load(folder)))
    torch.testing.assert_close(found.score.float(), exact.score.float(), atol=0.3, rtol=0)
    assert model.generate(**batch, max_new_tokens=3, do_sample=False).shape[0] == 1


@pytest.mark.parametrize(
    "how",
    [
        {"num_beams": 2},
        {"do_sample": True, "top_k": 5},
        {"prompt_lookup_num_tokens": 2},
        {"num_return_sequences": 2, "do_sample": True},
    ],
    ids=str,
)
def test_every_way_to_generate(folder: Path, processor: CalmProcessor, how: dict[str, Any]) -> None:
    batch = inputs(processor, SCORE_PROMPT)
    torch.manual_seed(0)
    found = load(folder).generate(**batch, max_new_tokens=4, **({"do_sample": False} | how))
    assert found.shape[0] == how.get("num_return_sequences", 1)
    assert batch["input_ids"].shape[1] < found.shape[1] <= batch["input_ids"].shape[1] + 4


def test_looked_up_drafts_change_no_token(folder: Path, processor: CalmProcessor) -> None:
    model, batch = load(folder), inputs(processor, SCORE_PROMPT)
    plain, drafted = (
        model.generate(**batch, max_new_tokens=8, do_sample=False, **how)
        for how in ({}, {"prompt_lookup_num_tokens": 3})
    )
    assert torch.equal(plain, drafted)


def test_several_tokens_may_end_a_looked_up_answer(folder: Path, processor: CalmProcessor) -> None:
    model, batch = load(folder), inputs(processor, SCORE_PROMPT)
    end, further = model.generation_config.eos_token_id, processor.tokenizer.convert_tokens_to_ids("a")
    model.generation_config.eos_token_id = [end, further]
    plain, drafted = (
        model.generate(**batch, max_new_tokens=8, do_sample=False, **how)
        for how in ({}, {"prompt_lookup_num_tokens": 3})
    )
    assert torch.equal(plain, drafted)


def test_a_compiled_model_reads_as_the_plain_one(folder: Path, processor: CalmProcessor) -> None:
    """By the compiler's first half: the second writes C++, which takes minutes and a compiler."""
    model, batch = load(folder), inputs(processor, SCORE_PROMPT)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        found, plain = (one(**batch) for one in (compiled, model))
    torch.testing.assert_close(found.score, plain.score, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.logits, plain.logits, atol=1e-3, rtol=0)


def test_an_adapter_beside_the_model_that_has_it_says_so_and_does_not_act_twice_in_silence(
    folder: Path, processor: CalmProcessor
) -> None:
    model, batch = load(folder), inputs(processor, SCORE_PROMPT)
    said = (folder / ADAPTER / "README.md").read_text(encoding="utf-8")
    base = model.config.provenance["language"]["name"]
    assert PeftConfig.from_pretrained(folder / ADAPTER).base_model_name_or_path == base
    assert base in said and "merged" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**batch)
    PeftModel.from_pretrained(model.language_model, folder / ADAPTER)
    with pytest.warns(UserWarning, match="it is merged already and acts twice"):
        model(**batch)


def test_an_adapter_of_ones_own_on_the_merged_model_is_nobodys_business(folder: Path, processor: CalmProcessor) -> None:
    model, batch = load(folder), inputs(processor, SCORE_PROMPT)
    get_peft_model(model.language_model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**batch)


def test_prompts_of_unequal_length_are_answered_as_alone(folder: Path, processor: CalmProcessor) -> None:
    model, batch = load(folder), inputs(processor, *PROMPTS)
    assert batch["attention_mask"].min() == 0  # padded, on the left
    together = model.generate(**batch, max_new_tokens=5, do_sample=False)[:, batch["input_ids"].shape[1] :]
    for row, prompt in enumerate(PROMPTS):
        text = [said(processor, messages(prompt))]
        own = processor(text=text, images=[tiny.pictures(2)[row]], return_tensors="pt")
        alone = model.generate(**own, max_new_tokens=5, do_sample=False)[0, own["input_ids"].shape[1] :]
        assert torch.equal(together[row, : len(alone)], alone)


def test_several_photographs_and_none(folder: Path, processor: CalmProcessor) -> None:
    model = load(folder)
    two = said(processor, [{"role": "user", "content": "<image>\n<image>\nWhich is better?"}])
    none = said(processor, [{"role": "user", "content": "What is a vignette?"}])
    for text, images in ((two, tiny.pictures(2)), (none, None)):
        batch = processor(text=[text], images=images, return_tensors="pt")
        assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[0] == 1


def test_a_photograph_without_its_place_in_the_text_is_told(folder: Path, processor: CalmProcessor) -> None:
    with pytest.raises(ValueError, match="<image>"):
        load(folder)(**processor(text=["no place"], images=tiny.pictures(1), return_tensors="pt"))


@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_attention_is_chosen_by_name(folder: Path, processor: CalmProcessor, how: str) -> None:
    batch = inputs(processor, SCORE_PROMPT)
    with torch.inference_mode():
        found, usual = (load(folder, **options)(**batch).score for options in ({"attn_implementation": how}, {}))
    torch.testing.assert_close(found, usual, atol=1e-4, rtol=0)


def test_a_device_map_places_it(folder: Path, processor: CalmProcessor) -> None:
    batch = inputs(processor, SCORE_PROMPT)
    with torch.inference_mode():
        assert torch.equal(load(folder, device_map="cpu")(**batch).score, load(folder)(**batch).score)


def test_it_comes_back_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    model.save_pretrained(tmp_path)
    before, after = model.state_dict(), load(tmp_path).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_step_of_transformers_own_trainer(folder: Path, processor: CalmProcessor, tmp_path: Path) -> None:
    model, batch = load(folder), inputs(processor, SCORE_PROMPT, SCORE_PROMPT)
    rows = [{name: values[row] for name, values in batch.items()} for row in range(2)]
    rows = [row | {"labels": row["input_ids"]} for row in rows]
    before = model.mfam.thematic.weight.clone()
    options = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, save_steps=9
    )
    loss = Trainer(model=model, args=options, train_dataset=rows).train().training_loss
    assert loss > 0 and not torch.equal(model.mfam.thematic.weight, before)
