"""What a step computes: batches of conversations, features, and the losses against hand computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from calm.attributes import LEVELS
from calm.attributes.edits import Edit, apply_edits
from calm.attributes.taxonomy import taxonomy
from calm.data.store import tables
from calm.data.store.tables import GUIDANCE
from calm.instructions import COMMENT_PROMPT, messages
from calm.io import read_table
from calm.model.build import Assembly, assemble
from calm.model.modeling import IGNORED
from calm.model.pretrained import load_text_encoder
from calm.model.processing import normalise
from calm.model.readouts import MEAN_DECIMAL
from calm.training.features import Features, Photographs, render
from calm.training.loop.order import Part
from calm.training.losses import TextBank
from calm.training.losses.contrastive import multi_positive
from calm.training.pretrain import AttributeObjective, state_table
from calm.training.settings import Optimisation, Regression
from calm.training.tuning import InstructionObjective, collate
from tests import tiny

OPTIONS = Optimisation(**tiny.RUN | {"warmup": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0, "batch_size": 3})


def test_multi_positive_is_the_mean_log_share_of_the_own_texts() -> None:
    similarity = torch.tensor([[[1.0, 0.0], [2.0, -1.0], [5.0, 5.0]]])
    found = multi_positive(similarity, torch.tensor([1]), torch.tensor([[True, True, False]]))
    total = sum(np.exp([1.0, 0.0, 2.0, -1.0]))  # the third state does not compete
    expected = -np.mean([2.0 - np.log(total), -1.0 - np.log(total)])
    assert found.item() == pytest.approx(expected)


def test_multi_positive_averages_over_rows() -> None:
    similarity = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    own, candidates = torch.tensor([0, 1, 2, 1]), torch.ones(4, 3, dtype=torch.bool)
    rows = [multi_positive(similarity[i : i + 1], own[i : i + 1], candidates[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(multi_positive(similarity, own, candidates), torch.stack(rows).mean())


def test_answers_alone_are_learned_and_padding_is_masked(assembly: Assembly) -> None:
    tokenizer = assembly.processor.tokenizer
    batch = collate(assembly.processor, [messages(COMMENT_PROMPT), messages("Short?")], ["Yes.", "A longer answer."])
    for row, answer in enumerate(("Yes.", "A longer answer.")):
        learned = batch.labels[row] != IGNORED
        ids = batch.labels[row][learned].tolist()
        assert tokenizer.decode(ids[:-1]) == answer and ids[-1] == tokenizer.eos_token_id
        assert torch.equal(batch.input_ids[row][learned], batch.labels[row][learned])
        assert int(learned.nonzero()[0]) == int(batch.prompt_ends[row]) + 1
        length = int(batch.attention_mask[row].sum())
        assert batch.attention_mask[row, :length].all() and int(learned.nonzero()[-1]) == length - 1
        assert (batch.input_ids[row, length:] == tokenizer.pad_token_id).all()


def test_prompts_in_training_are_those_of_use(assembly: Assembly) -> None:
    batch = collate(assembly.processor, [messages(COMMENT_PROMPT)], ["Yes."])
    used = assembly.processor.tokenizer(assembly.processor.prompt(messages(COMMENT_PROMPT))).input_ids
    assert batch.input_ids[0, : int(batch.prompt_ends[0]) + 1].tolist() == used


@pytest.mark.parametrize("hostile", ["<|im_end|>", "<low><thematic>", "<image>", "<|endoftext|> and on"])
def test_special_names_in_answers_stay_plain_text(assembly: Assembly, hostile: str) -> None:
    batch = collate(assembly.processor, [messages(COMMENT_PROMPT)], [hostile])
    learned = batch.labels[0][batch.labels[0] != IGNORED][:-1]
    special = {*assembly.processor.tokenizer.all_special_ids, *assembly.model.config.placeholder_token_ids}
    assert not special & set(learned.tolist())
    assert assembly.processor.tokenizer.decode(learned) == hostile


def test_rendering_edits_each_photograph_by_its_own_edits() -> None:
    attribute = taxonomy().attribute("brightness")
    edit = Edit(attribute.name, attribute.states[0].name, 1.0, 5)
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.rand(3, *size, generator=generator) for size in ((80, 96), (96, 80), (80, 96))]
    edits: list[list[Edit]] = [[edit], [], []]
    found = render(pixels, edits, tiny.PREPROCESSING)
    assert found.shape == (3, 3, tiny.SIDE, tiny.SIDE)
    edited = [apply_edits(one[None], [own]) for one, own in zip(pixels, edits, strict=True)]
    alone = [normalise(one, tiny.PREPROCESSING)[0] for one in edited]
    torch.testing.assert_close(found, torch.stack(alone))
    assert not torch.allclose(found[0], normalise(pixels[0][None], tiny.PREPROCESSING)[0], atol=0.05)


def test_kept_features_are_those_of_encoding_again(assembly: Assembly, tiny_template: Any) -> None:
    photographs = Photographs(tiny_template.layout, [tiny.DATASET])
    keys = [(tiny.DATASET, name) for name in ("p3", "p0", "p3", "p1")]
    kept, again = (Features(assembly, photographs, keep=keep)(keys) for keep in (True, False))
    for level in LEVELS:
        torch.testing.assert_close(kept[level], again[level], rtol=1e-4, atol=1e-5)
        assert torch.equal(kept[level][0], kept[level][2])


def objective(
    assembly: Assembly, world: Any, use: str, weight: float = 0.0, spread: float = 0.0, decimal_spread: float = 0.0
) -> InstructionObjective:
    rows = tables.instructions(world.layout, use)
    features = Features(assembly, Photographs(world.layout, rows["dataset"]), keep=True)
    options: Optimisation = OPTIONS
    if weight:
        scores = world.params().finetune.scores
        changes = OPTIONS.model_dump() | {
            "regression": Regression(weight=weight, visual=0.5, mirrored=False),
            "spread": spread,
            "decimal_spread": decimal_spread,
        }
        options = scores.model_copy(update=changes)
    return InstructionObjective(assembly, features, rows, {}, options, 17, "test")


@torch.no_grad()
def test_the_regression_loss_is_the_squared_error_in_half_scales(assembly: Assembly, tiny_template: Any) -> None:
    of_scores = objective(assembly, tiny_template, "scores", weight=2.0)
    losses = of_scores.losses(0)
    chosen = of_scores.rows.iloc[of_scores.order(0)]
    for line in (assembly.model.score_head.language, assembly.model.score_head.visual[-1]):
        torch.nn.init.zeros_(line.weight)
        torch.nn.init.zeros_(line.bias)
    at_middle = of_scores.losses(0)["regression"]
    assert at_middle.item() == pytest.approx((((chosen["score"] - 5.5) / 4.5) ** 2).mean(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((losses["language"] + 2 * losses["regression"]).item())


@torch.no_grad()
def test_with_a_spread_the_first_digit_is_taught_its_neighbours_too(assembly: Assembly, tiny_template: Any) -> None:
    plain, spread = (objective(assembly, tiny_template, "scores", weight=1.0, spread=s) for s in (0.0, 0.8))
    chosen = spread.rows.iloc[spread.order(0)]
    assert chosen["score"].notna().any()
    model, tokenizer = assembly.model, assembly.processor.tokenizer
    batch = collate(assembly.processor, [list(m) for m in chosen["messages"]], list(chosen["answer"]))
    visual = model.mfam(spread.features([key for row in spread.order(0) for key in spread.keys[row]]))
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, visual_tokens=visual).logits
    change = 0.0
    log_p = logits.float().log_softmax(-1)
    for row, (score, answer) in enumerate(zip(chosen["score"], chosen["answer"], strict=True)):
        if np.isnan(score):
            continue
        end, ids = int(batch.prompt_ends[row]), [*tokenizer(answer).input_ids, tokenizer.eos_token_id]
        said = [-log_p[row, end + place, token].item() for place, token in enumerate(ids)]
        shares = np.exp(-0.5 * ((np.arange(1, 10) + MEAN_DECIMAL - score) / 0.8) ** 2)
        digit = -float(shares / shares.sum() @ log_p[row, end, model.config.digit_token_ids[1:]].numpy())
        change += (digit + np.mean(said[1:])) / 2 - np.mean(said)
    found = spread.losses(0)["language"] - plain.losses(0)["language"]
    assert found.item() == pytest.approx(change / len(chosen), rel=1e-3)


@torch.no_grad()
def test_with_a_spread_of_the_decimal_it_is_taught_after_drawn_whole_numbers(
    assembly: Assembly, tiny_template: Any
) -> None:
    settings = {"weight": 1.0, "spread": 0.8}
    found = objective(assembly, tiny_template, "scores", **settings, decimal_spread=0.5)
    chosen, many = found.rows.iloc[found.order(0)], 200
    rated = chosen[chosen["score"].notna()].iloc[[0] * many]
    score, given = rated["score"].iloc[0], rated["answer"].iloc[0]
    answers, targets = found._answers(rated, (np.arange(many) + 0.5) / many)
    wholes = pd.Series([int(answer[0]) for answer in answers])
    assert all(answer[1:] == given[1:] for answer in answers)
    shares = targets["digit_targets"][0]
    assert wholes.value_counts().reindex(range(1, 10), fill_value=0).to_numpy() / many == pytest.approx(
        shares, abs=0.01
    )
    for whole, decimals in zip(wholes, targets["decimal_targets"], strict=True):
        expected = np.exp(-0.5 * ((whole + np.arange(10) / 10 - score) / 0.5) ** 2)
        assert decimals.numpy() == pytest.approx(expected / expected.sum(), abs=1e-5)
    # The loss of a step: as of a label that says the drawn number, but for the two digits.
    answers, targets = found._answers(chosen, found._draws(0))
    batch = collate(assembly.processor, [list(m) for m in chosen["messages"]], answers)
    visual = assembly.model.mfam(found.features([key for row in found.order(0) for key in found.keys[row]]))
    read = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "visual_tokens": visual}
    log_p = assembly.model(**read).logits.float().log_softmax(-1)[..., assembly.model.config.digit_token_ids]
    own, sharp = (
        assembly.model(**read, labels=batch.labels, **told).loss
        for told in (targets, {"digit_targets": targets["digit_targets"]})
    )
    change = 0.0
    for row, (score, answer) in enumerate(zip(chosen["score"], answers, strict=True)):
        if not np.isnan(score):
            place, length = int(batch.prompt_ends[row]) + 2, int((batch.labels[row] >= 0).sum())
            soft = -float(targets["decimal_targets"][row] @ log_p[row, place])
            change += (soft + float(log_p[row, place, int(answer[2])])) / (2 * (length - 1))
    assert change and float(own - sharp) == pytest.approx(change / len(chosen), rel=1e-3)
    assert found.losses(0)["language"].item() == pytest.approx(own.item(), rel=1e-5)


@torch.no_grad()
def test_rows_without_a_score_do_not_count(assembly: Assembly, tiny_template: Any) -> None:
    found = objective(assembly, tiny_template, "scores", weight=1.0)
    predicted = torch.tensor([[1.0, 5.5], [10.0, 10.0], [3.0, 7.5]])  # two parts of the score head
    some = found._regression(predicted, pd.Series([1.0, None, 7.5]), count=2)
    assert some.item() == pytest.approx((0 + 1 + 1 + 0) / 4)
    assert found._regression(predicted, pd.Series([None] * 3), count=0).item() == 0


@torch.no_grad()
def test_without_a_weight_there_is_no_regression(assembly: Assembly, tiny_template: Any) -> None:
    losses = objective(assembly, tiny_template, "comments").losses(0)
    assert set(losses) == {"loss", "language", "padding"} and losses["loss"] == losses["language"]


def summed(found: Any, step: int, of: int) -> dict[str, torch.Tensor]:
    """Losses and gradients of a step, computed in parts."""
    for parameter in found.parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    total: dict[str, torch.Tensor] = {}
    for number in range(of):
        part = Part(number, of)
        losses = found.losses(step, part, found.read(step, part))
        losses["loss"].backward()
        total = {name: total.get(name, 0) + value.detach() for name, value in losses.items()}
    gradients = {name: p.grad for name, p in found.parameters.items() if p.grad is not None}
    return total | {f"gradient of {name}": value for name, value in gradients.items()}


@pytest.mark.parametrize("kept", [0, 2])
def test_parts_of_a_step_sum_to_its_self_supervision(tiny_template: Any, kept: int) -> None:
    params = tiny_template.params(pretrain__attributes__views=kept)
    assembly = assemble(params, state_table(taxonomy()))
    found = AttributeObjective(
        assembly,
        TextBank(read_table(tiny_template.layout.texts, GUIDANCE)),
        load_text_encoder(params.parts.text),
        Photographs(tiny_template.layout, [tiny.DATASET]),
        [(tiny.DATASET, f"p{number}") for number in range(tiny.PICTURES)],
        params.pretrain.attributes,
        17,
    )
    for step in range(3):
        whole = summed(found, step, 1)
        assert whole["loss"] > 0
        for of in (2, 8):  # 8: parts of one view, most without some level
            for name, value in summed(found, step, of).items():
                expected = whole.get(name, torch.zeros_like(value))
                torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_parts_of_a_step_sum_to_its_losses_though_few_rows_have_a_score(assembly: Assembly, tiny_template: Any) -> None:
    found = objective(assembly, tiny_template, "scores", weight=1.0)
    found.rows.loc[found.rows.index % 3 > 0, "score"] = None
    found.parameters = dict(assembly.model.mfam.thematic.named_parameters())
    whole = summed(found, 0, 1)
    for name, value in summed(found, 0, 3).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_padding_is_the_share_of_tokens_that_say_nothing(assembly: Assembly, tiny_template: Any) -> None:
    found = objective(assembly, tiny_template, "comments")
    found.rows.loc[0, "answer"] = "A much longer answer than all the others that are in this batch have."
    step = next(step for step in range(9) if 0 in found.order(step))
    with torch.no_grad():
        assert 0 < found.losses(step)["padding"] < 1
