"""Placeholders become visual tokens, losses count answers alone, scores are read where the prompt ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calm.instructions import SCORE_PROMPT, messages, personal_messages
from calm.model.build import Assembly
from calm.model.heads import REACH
from calm.model.modeling import IGNORED, CalmOutput
from calm.model.readouts import (
    MEAN_DECIMAL,
    answer_log_likelihood,
    digit_shares,
    digit_targets,
    distribution,
    expectation,
    score_answer,
)


def prompt_ids(assembly: Assembly, count: int = 1) -> torch.Tensor:
    prompt = assembly.processor.prompt(messages(SCORE_PROMPT))
    ids: torch.Tensor = assembly.processor.tokenizer(prompt, return_tensors="pt").input_ids
    return ids.expand(count, -1)


@torch.inference_mode()
def embedded(assembly: Assembly, pixels: torch.Tensor) -> torch.Tensor:
    visual = assembly.model.mfam(assembly.model.encode_images(pixels))
    return assembly.model.embed_prompt(prompt_ids(assembly, len(pixels)), visual)


def test_placeholders_are_replaced_in_order_and_words_stay(assembly: Assembly, pixels: torch.Tensor) -> None:
    model, ids = assembly.model, prompt_ids(assembly, 2)
    visual = model.mfam(model.encode_images(pixels[:2]))
    found = model.embed_prompt(ids, visual)
    places = ids >= model.config.text_config.vocab_size
    assert torch.equal(found[places].view_as(visual), visual)
    assert torch.equal(found[~places], model.get_input_embeddings()(ids[~places]))


def test_placeholder_ids_never_reach_the_embedding(assembly: Assembly, pixels: torch.Tensor) -> None:
    seen: list[int] = []
    embedding = assembly.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda module, inputs, output: seen.append(int(inputs[0].max())))
    assembly.model(input_ids=prompt_ids(assembly), pixel_values=pixels[:1])
    handle.remove()
    assert seen and max(seen) < assembly.model.config.text_config.vocab_size


@pytest.mark.parametrize("photographs", [0, 2])
def test_as_many_photographs_as_image_tokens_are_wanted(
    assembly: Assembly, pixels: torch.Tensor, photographs: int
) -> None:
    with pytest.raises(ValueError, match="one <image> a photograph"):
        assembly.model(input_ids=prompt_ids(assembly), pixel_values=pixels[:photographs] if photographs else None)


def test_several_photographs_in_one_prompt_are_read_in_order(assembly: Assembly, pixels: torch.Tensor) -> None:
    prompt = assembly.processor.prompt(personal_messages([3.0, 7.0]))
    ids = assembly.processor.tokenizer(prompt, return_tensors="pt").input_ids
    one = assembly.model(input_ids=ids, pixel_values=pixels).logits[:, -1]
    swapped = assembly.model(input_ids=ids, pixel_values=pixels.flip(0)).logits[:, -1]
    assert not torch.allclose(one, swapped, atol=1e-4)


def test_nothing_to_read_is_an_error(assembly: Assembly) -> None:
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        assembly.model()


def test_the_loss_is_the_cross_entropy_of_each_answer_averaged_over_answers(
    assembly: Assembly, pixels: torch.Tensor
) -> None:
    ids = prompt_ids(assembly, 2)
    labels = torch.full_like(ids, IGNORED)
    labels[0, -4:], labels[1, -2:] = ids[0, -4:], ids[1, -2:]
    with torch.no_grad():
        loss = assembly.model(input_ids=ids, pixel_values=pixels[:2], labels=labels).loss
        logits = assembly.model(input_ids=ids, pixel_values=pixels[:2]).logits
    of_each = [
        torch.nn.functional.cross_entropy(logits[row, :-1], labels[row, 1:], ignore_index=IGNORED) for row in range(2)
    ]
    torch.testing.assert_close(loss, torch.stack(of_each).mean())


def test_the_score_is_read_where_the_prompt_ends(assembly: Assembly, pixels: torch.Tensor) -> None:
    ids = prompt_ids(assembly)
    end = torch.tensor([ids.shape[1] - 1])
    longer = torch.cat([ids, ids[:, -3:]], dim=1)
    at_end = assembly.model(input_ids=ids, pixel_values=pixels[:1]).score
    before_answer = assembly.model(input_ids=longer, pixel_values=pixels[:1], score_positions=end).score
    torch.testing.assert_close(at_end, before_answer)


def test_zero_of_the_score_head_is_the_middle_of_the_scale(assembly: Assembly) -> None:
    visual = torch.ones(2, assembly.model.config.vision_tokens, 32)
    for line in (assembly.model.score_head.language, assembly.model.score_head.visual[-1]):
        torch.nn.init.zeros_(line.weight)
    for bias, score in ((0.0, 5.5), (1.0, 10.0), (-1.0, 1.0)):
        for line in (assembly.model.score_head.language, assembly.model.score_head.visual[-1]):
            torch.nn.init.constant_(line.bias, bias)
        assert assembly.model.regress(torch.ones(2, 32), visual).tolist() == pytest.approx([score] * 2)


def test_the_score_is_of_the_photograph_too_or_of_the_language_model_alone(
    assembly: Assembly, pixels: torch.Tensor
) -> None:
    model = assembly.model
    states = torch.ones(2, 32)
    torch.nn.init.normal_(model.score_head.visual[-1].weight)
    with torch.no_grad():
        visual = model.mfam(model.encode_images(pixels[:2]))
        seen = model.score_head.look(visual)
        assert len(set(seen[:, 0].tolist())) == 2
        parts, language = model.score_head(states, visual), model.score_head.language
        direction = REACH * states / 32**0.5  # beside a visual part; else the state itself
        torch.testing.assert_close(parts, torch.stack([language(direction), seen], dim=1))
        torch.testing.assert_close(model.regress(states, visual), 5.5 + 4.5 * parts[:, :, 0].mean(1))
        model.score_head.visual = None
        assert torch.equal(model.score_head(states, visual)[:, 0], language(states))


def test_beside_a_visual_part_the_score_is_read_off_the_direction_of_a_state(assembly: Assembly) -> None:
    head, states = assembly.model.score_head, torch.randn(3, 32)
    visual = torch.ones(3, assembly.model.config.vision_tokens, 32)
    torch.nn.init.normal_(head.language.weight)
    with torch.no_grad():
        torch.testing.assert_close(head(50 * states, visual), head(states, visual))
        before = head(50 * states, visual)
        head.language.weight += 1e-3 * states.sign()[0]  # Adam's first step, at its worst
        assert (head(50 * states, visual) - before).abs().max() <= 1e-3 * REACH * 32**0.5


def test_a_prompt_about_several_photographs_has_no_regression_readout(assembly: Assembly, pixels: torch.Tensor) -> None:
    ids = prompt_ids(assembly)
    assert assembly.model(input_ids=torch.cat([ids, ids], dim=1), pixel_values=pixels[:2]).score is None
    assert assembly.model(input_ids=torch.cat([ids, ids]), pixel_values=pixels[:2]).score.shape == (2,)


def test_the_encoder_builds_no_graph(assembly: Assembly, pixels: torch.Tensor) -> None:
    assembly.model.requires_grad_(True)
    assert not assembly.model.encode_images(pixels).low.requires_grad


def test_expectation_is_the_hand_computed_mean() -> None:
    digits = list(range(20, 30))
    logits = torch.full((2, 40), 50.0)  # other tokens do not count
    logits[:, 20:30] = -30.0
    logits[0, 20], logits[0, 26], logits[0, 27] = 100.0, 0.0, torch.tensor(3.0).log()  # 0 is no whole number of a score
    logits[1, 24] = 0.0
    expected = torch.tensor([(6 + 3 * 7) / 4, 4]) + MEAN_DECIMAL
    torch.testing.assert_close(expectation(digit_shares(logits, digits)), expected)


def test_digit_targets_lie_around_the_score_and_leave_out_what_no_digit_stands_for() -> None:
    found = digit_targets(torch.tensor([1.0, 5.45, 7.2, torch.nan, 10.0]), 0.8)
    torch.testing.assert_close(found[:3].sum(1), torch.ones(3))
    assert found[:3].argmax(1).tolist() == [0, 4, 6] and found[3:].isnan().all()
    assert expectation(found[1:2]).item() == pytest.approx(5.45, abs=1e-3)


def test_the_distribution_over_the_scales_steps_has_the_expectation_as_its_mean() -> None:
    shares = torch.randn(5, 9).softmax(-1)
    steps = distribution(shares)
    assert steps.shape == (5, 10) and bool((steps >= 0).all())
    torch.testing.assert_close(steps.sum(1), torch.ones(5))
    torch.testing.assert_close(steps @ torch.arange(1, 11, dtype=torch.float32), expectation(shares))


def test_scores_are_those_of_a_plain_pass_and_of_generate(assembly: Assembly, pixels: torch.Tensor) -> None:
    model, embeddings = assembly.model, embedded(assembly, pixels)
    end = assembly.processor.tokenizer.eos_token_id
    with torch.inference_mode():
        visual = model.mfam(model.encode_images(pixels))
        plain = model(inputs_embeds=embeddings, visual_tokens=visual)
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
        generated = model.generate(inputs_embeds=embeddings, attention_mask=mask, max_new_tokens=5, do_sample=False)
    torch.testing.assert_close(
        score_answer(model, embeddings, visual, end, 7)[0],
        digit_shares(plain.logits[:, -1], model.config.digit_token_ids),
    )
    tokens = {7, *generated.flatten().tolist()}
    for rows in (slice(None), slice(0, 1), slice(1, 2)):
        for draft in tokens:  # alone, a row's own tokens come true as drafts; together, they are true of one row
            _, regressed, ids = score_answer(model, embeddings[rows], visual[rows], end, draft, max_tokens=5)
            torch.testing.assert_close(regressed, plain.score[rows])
            assert torch.equal(ids, generated[rows])
    assert len(set(generated[0, 1:].tolist()) ^ set(generated[1, 1:].tolist())) > 1


def test_a_draft_that_comes_true_halves_the_passes(
    assembly: Assembly, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, embeddings = assembly.model, embedded(assembly, pixels)
    point, read = 7, []

    def always(input_ids: torch.Tensor | None = None, **inputs: Any) -> CalmOutput:
        found = forward(input_ids=input_ids, **inputs)
        read.append(found.logits.shape[1])
        found.logits = torch.nn.functional.one_hot(torch.full(found.logits.shape[:2], point), 32).float()
        return found

    forward = model.forward
    monkeypatch.setattr(model, "forward", always)
    visual = torch.zeros(len(pixels), model.config.vision_tokens, 32)
    assert set(score_answer(model, embeddings, visual, -1, point, max_tokens=6)[2].flatten().tolist()) == {point}
    assert read == [1, 2, 2, 1]


def test_an_answer_stops_at_its_end(assembly: Assembly, pixels: torch.Tensor) -> None:
    embeddings = embedded(assembly, pixels[:1])
    visual = torch.zeros(1, assembly.model.config.vision_tokens, 32)
    first = int(score_answer(assembly.model, embeddings, visual, -1, 7)[2][0, 0])
    assert score_answer(assembly.model, embeddings, visual, first, 7)[2].tolist() == [[first]]
    whole = score_answer(assembly.model, embeddings, visual, -1, 7)[2][0].tolist()
    for draft in (7, whole[1]):
        assert score_answer(assembly.model, embeddings, visual, whole[1], draft)[2].tolist() == [whole[:2]]


def test_answer_likelihoods_are_those_of_plain_passes(assembly: Assembly, pixels: torch.Tensor) -> None:
    model, embeddings = assembly.model, embedded(assembly, pixels[:1])
    answers = [[50, 60, 70, 80], [50, 60, 90], [90, 40], [33], [50, 60, 70, 80]]  # which partly begin alike
    found = answer_log_likelihood(model, embeddings, answers)
    for row, answer in enumerate(answers):
        own = torch.tensor([answer])
        with torch.inference_mode():
            whole = torch.cat([embeddings, model.get_input_embeddings()(own)], dim=1)
            log_p = model(inputs_embeds=whole).logits[0, embeddings.shape[1] - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(found[row], log_p[range(len(answer)), own[0]].mean(), rtol=1e-4, atol=1e-4)
