"""What users call: shapes, ranges, independence of the batch, clear errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from calm.assistant import Calm, Score, recognition
from calm.assistant.personal import ContextError, read_last
from calm.assistant.recognition import Flaw, Settled
from calm.assistant.speech import BEAMS, Consistent, Truthful, barred
from calm.attributes import LEVELS
from calm.attributes.grammar import STANDINGS, openings
from calm.attributes.taxonomy import taxonomy
from calm.data.store.images import read_image
from calm.instructions import COMMENT_PROMPT, parse_score, personal_messages
from calm.model.build import TRAINED, CheckpointError, checkpoint_sha256
from calm.model.readouts import answer_log_likelihood
from tests import tiny


@pytest.fixture(scope="module")
def calm(trained_template: Any) -> Calm:
    return Calm.from_pretrained(trained_template.layout.finetuned("scores"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def looker(trained_template: Any) -> Calm:
    return Calm.from_pretrained(trained_template.layout.pretrained("attributes").parent, device="cpu", dtype="float32")


def numbers(scores: list[Score]) -> np.ndarray:
    return np.array([(score.expectation, score.regression) for score in scores])


def test_every_photograph_gets_a_score_read_in_three_ways(calm: Calm) -> None:
    scores = calm.score(tiny.pictures(5), batch_size=2)
    assert len(scores) == 5
    low, high = calm.score_range
    for score in scores:
        assert low <= score.expectation <= high
        assert score.text == parse_score(score.raw)
        assert np.isfinite(score.regression)
        assert 0 < score.spread < 4.5
    assert len({score.regression for score in scores}) == 5


def test_an_opened_photograph_is_read_as_the_command_reads_it(calm: Calm, tmp_path: Path) -> None:
    upright = tiny.picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    upright.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    upright.convert("CMYK").save(tmp_path / "press.tif")
    cut_out = upright.copy()
    cut_out.putalpha(Image.linear_gradient("L").resize(upright.size))
    cut_out.save(tmp_path / "cut-out.png")
    for path in sorted(tmp_path.iterdir()):
        opened, read = calm.score([Image.open(path)]), calm.score([read_image(path, max_pixels=10**6)])
        assert opened == read, path.name


def test_a_score_of_the_visual_part_reads_the_mirrored_photograph_too(
    calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tiny.pictures(3)
    mirrored = [ImageOps.mirror(picture) for picture in pictures]

    def scored(images: list[Image.Image]) -> list[float]:
        monkeypatch.setattr(calm.model.config, "score_visual", 0.25)
        mixed = calm.score(images)
        monkeypatch.setattr(calm.model.config, "score_visual", 1.0)
        seen = calm.score(images)
        monkeypatch.setattr(calm.model.config, "score_visual", 0.0)
        said = calm.score(images)
        for a, b, c in zip(mixed, seen, said, strict=True):
            assert a.regression == pytest.approx(b.regression / 4 + c.regression * 3 / 4, abs=1e-5)
        return [score.regression for score in seen]

    apart = np.array([scored(pictures), scored(mirrored)])
    assert np.abs(apart[0] - apart[1]).min() > 1e-3
    monkeypatch.setattr(calm.model.config, "score_mirrored", True)
    both = np.array([scored(pictures), scored(mirrored)])
    assert both[0] == pytest.approx(apart.mean(0), abs=1e-5) and both[1] == pytest.approx(both[0], abs=1e-5)
    monkeypatch.setattr(calm.model.config, "score_visual", 0.25)
    assert calm.observe(pictures).regression == pytest.approx(
        [one.regression for one in calm.score(pictures)], abs=1e-4
    )


def test_every_photograph_gets_a_comment(calm: Calm) -> None:
    comments = calm.comment(tiny.pictures(3), batch_size=2, max_new_tokens=6)
    assert len(comments) == 3 and all(isinstance(text, str) for text in comments)
    for token in ("<|im_end|>", "<low>", "<|im_start|>"):
        assert not any(token in text for text in comments)


def test_a_comment_is_likelier_than_what_greedy_decoding_writes(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, generate, written = tiny.picture(0), calm.model.generate, []
    monkeypatch.setattr(calm.model, "generate", lambda **options: written.append(generate(**options)) or written[-1])
    for beams in (1, BEAMS):
        monkeypatch.setattr("calm.assistant.assistant.BEAMS", beams)
        calm.comment(picture, max_new_tokens=6)
    prompt = calm._prompt(COMMENT_PROMPT, calm.observe(picture).tokens)
    greedy, found = answer_log_likelihood(calm.model, prompt, [ids[0].tolist() for ids in written])
    assert found > greedy


def test_no_comment_says_a_clause_twice(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    said = calm._speaker.tokenizer(
        "the scene is tidy and the scene is", add_special_tokens=False, return_tensors="pt"
    ).input_ids
    (once,) = barred([], None, calm._speaker.tokenizer)
    shares = once(said, torch.zeros(1, len(calm._speaker.tokenizer)))
    assert shares[0].isinf().nonzero().flatten().tolist() == [int(said[0, 3])]
    generate, written = calm.model.generate, []
    monkeypatch.setattr(calm.model, "generate", lambda **options: written.append(generate(**options)) or written[-1])
    for tokens in (1, 100):  # single tokens come once; then nothing is barred, and this untrained model repeats itself
        monkeypatch.setattr("calm.assistant.speech.ONCE", tokens)
        calm.comment(tiny.picture(0), max_new_tokens=20)
    assert [len(set(ids[0].tolist())) == len(ids[0]) for ids in written] == [True, False]


def test_a_verdict_does_not_contradict_the_score(calm: Calm) -> None:
    tokenizer = calm._speaker.tokenizer
    begun = {one: tokenizer(openings(one)).input_ids for one in STANDINGS}
    for so_far in [ids[:-1] for of_one in begun.values() for ids in of_one]:
        # The beams of three photographs have begun with the same words: what may follow depends on a standing alone.
        ids = torch.tensor([so_far] * len(STANDINGS) * BEAMS)
        shares = Consistent(STANDINGS, tokenizer)(ids, torch.zeros(len(ids), len(tokenizer)))
        for standing, beams in zip(STANDINGS, shares.split(BEAMS), strict=True):
            others = [other for one in STANDINGS if one != standing for other in begun[one]]
            ended = {other[-1] for other in others if other[:-1] == so_far[len(so_far) - len(other) + 1 :]}
            assert all(set(beam.isinf().nonzero().flatten().tolist()) == ended for beam in beams)


def test_comments_keep_to_the_score_where_the_model_has_learnt_verdicts(
    calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, asked = tiny.pictures(3), []
    monkeypatch.setattr(
        "calm.assistant.speech.Consistent",
        lambda standings, tokenizer: asked.append(standings) or Consistent(standings, tokenizer),
    )
    assert calm.comment(pictures, max_new_tokens=2) and not asked
    monkeypatch.setattr(calm.model.config, "verdicts", True)
    shares = [10.0, 50.0, 90.0]
    told = [replace(one, percentile=share) for one, share in zip(calm.score(pictures), shares, strict=True)]
    monkeypatch.setattr(calm, "score", lambda *_, **__: told)
    assert len(calm.comment(pictures, batch_size=2, max_new_tokens=2)) == 3
    assert asked == [["low", "middle"], ["high"]]


HARSH, NOISY = Flaw("contrast", "harsh", 0.9), Flaw("noise", "noisy", 0.6)
ASIDE = Flaw("orientation", "sideways", 0.8, turn=-90.0)


def free(calm: Calm, told: list[list[Flaw]], said: str, praised: tuple[str, ...] = ()) -> list[list[str]]:
    """For each photograph, the tokens that its first beam may go on with; none where all may."""
    tokenizer = calm._speaker.tokenizer
    settled = Settled(torch.empty(0), told, [praised] * len(told), [])
    ids = tokenizer(said, add_special_tokens=False, return_tensors="pt").input_ids.expand(len(told) * BEAMS, -1)
    scores = Truthful(settled, tokenizer)(ids, torch.zeros(len(ids), len(tokenizer)))
    left = [beams[0].isfinite().nonzero().flatten().tolist() for beams in scores.split(BEAMS)]
    return [[] if len(one) == len(tokenizer) else [tokenizer.decode(token) for token in one] for one in left]


def said_to_the_end(calm: Calm, told: list[Flaw], said: str, words: str, praised: tuple[str, ...] = ()) -> bool:
    """Whether a comment may go on with these words, token by token."""
    tokenizer = calm._speaker.tokenizer
    ids = tokenizer(words, add_special_tokens=False).input_ids
    begun = [said + tokenizer.decode(ids[:count]) for count in range(len(ids))]
    few = [free(calm, [told], text, praised)[0] for text in begun]
    return all(not one or tokenizer.decode(token) in one for one, token in zip(few, ids, strict=True))


@pytest.mark.parametrize(
    ("told", "said", "next_words"),
    [
        ([HARSH, NOISY], "What I see first is", ["harsh contrast", "visible noise"]),
        ([HARSH, NOISY], "What I see first is harsh contrast. I also notice", ["visible noise"]),
        ([HARSH, NOISY], "For me, the noise is clearly visible, and I see", ["harsh contrast"]),
        (
            [HARSH],
            "I notice harsh contrast. It would help to",
            taxonomy().attribute("contrast").state("harsh").remedies,
        ),
        ([ASIDE], "It suffers from a sideways picture. I would", ["turn the picture by 90 degrees to the left"]),
    ],
)
def test_a_comment_goes_on_with_its_photographs_flaws_and_remedies(
    calm: Calm, told: list[Flaw], said: str, next_words: list[str]
) -> None:
    assert free(calm, [told, []], said)[1] == []  # another photograph's beams
    assert all(said_to_the_end(calm, told, said, f" {one}") for one in next_words)
    assert not said_to_the_end(calm, told, said, " a sepia tone")


def test_once_all_flaws_are_named_a_comment_says_what_to_do_or_ends(calm: Calm) -> None:
    said = "It suffers from harsh contrast"
    for words in (", and", " and", ". Besides", ". I also notice", ". I see"):
        assert not said_to_the_end(calm, [HARSH], said, words)
        assert said_to_the_end(calm, [HARSH, NOISY], said, words)
    assert said_to_the_end(calm, [HARSH], said, ". I would") and said_to_the_end(calm, [HARSH], said, ". Try this:")
    assert calm._speaker.tokenizer.eos_token in free(calm, [[HARSH]], f"{said}.")[0]


@pytest.mark.parametrize("said", ["A decent photo:", "A weak shot, although"])
def test_praise_is_of_what_is_told_each_once_in_the_catalogues_words(calm: Calm, said: str) -> None:
    phrases = {name: taxonomy().attribute(name).unchanged.phrases for name in ("noise", "contrast", "sharpness")}
    clean, deep, sharp = phrases["noise"][0], phrases["contrast"][1], phrases["sharpness"][0]

    def may(words: str) -> bool:
        return said_to_the_end(calm, [], said, words, ("noise", "contrast"))

    assert may(f" {clean}, {deep}.") and may(f" {deep} and {clean}.") and may(f" {clean}. I would keep it.")
    assert not may(f" {sharp}") and not may(f" {clean} and {phrases['noise'][1]}") and not may(f" {clean} but")
    assert not may(f" {clean} and {deep} and")


def test_of_what_the_catalogue_does_not_have_a_comment_is_free(calm: Calm) -> None:
    assert free(calm, [[Flaw("mood", "gloomy", 0.9)]], "It suffers from") == [[]]
    assert free(calm, [[]], "A decent photo:", ("mood",)) == [[]]


def test_suggestions_are_what_is_recognised_with_a_remedy_of_that_state(
    calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calm.model.config, "told_probability", 1e-6)
    monkeypatch.setattr(calm.model.config, "told_further", 1e-6)
    monkeypatch.setattr(recognition, "_doubted", lambda _: {})  # all of it stands
    pictures = tiny.pictures(2)
    for suggestions, states in zip(calm.suggest(pictures, top=4), calm.recognise(pictures), strict=True):
        assert [(one.attribute, one.state, one.probability) for one in suggestions] == states[:4]
        assert [one.probability for one in suggestions] == sorted((p for *_, p in states), reverse=True)[:4]
        for one in suggestions:
            assert one.attribute is not None and one.state is not None
            remedies = taxonomy().attribute(one.attribute).state(one.state).remedies
            assert one.text in {f"I would {remedy}." for remedy in remedies}


def test_a_photograph_without_a_likely_flaw_is_left_alone(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm.model.config, "told_probability", 1.0)
    for (only,), states in zip(calm.suggest(tiny.pictures(2)), calm.recognise(tiny.pictures(2)), strict=True):
        assert (only.attribute, only.state, only.text) == (None, None, "Leave it as it is.")
        flaws = [p for attribute, state, p in states if not taxonomy().attribute(attribute).state(state).chosen]
        assert only.probability == pytest.approx(np.prod([1 - p for p in flaws]))


def test_a_checkpoint_without_calibration_says_what_makes_a_new_one(
    calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calm.model.config, "recognition", {})
    assert len(calm.comment(tiny.pictures(1), max_new_tokens=3)) == 1
    with pytest.raises(ValueError, match="an earlier calm made it; train a new one"):
        calm.suggest(tiny.pictures(1))


def test_the_language_model_alone_ranks_every_remedy(calm: Calm) -> None:
    for remedies in calm.rank_remedies(tiny.pictures(2)):
        assert len(remedies) == sum(len(attribute.states) for attribute in taxonomy().attributes)
        assert [one.log_odds for one in remedies] == sorted((one.log_odds for one in remedies), reverse=True)


@pytest.mark.parametrize("who", ["calm", "looker"])
def test_the_states_of_every_attribute_share_one(who: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(who).attributes(tiny.pictures(3), batch_size=2)
    assert len(found) == 3
    for of_photo in found:
        assert list(of_photo) == [attribute.name for attribute in taxonomy().attributes]
        for attribute in taxonomy().attributes:
            shares = of_photo[attribute.name]
            assert list(shares) == [state.name for state in attribute.all_states]
            assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("who", ["calm", "looker"])
def test_attention_maps_sum_to_one(who: str, request: pytest.FixtureRequest) -> None:
    maps = request.getfixturevalue(who).attention(tiny.pictures(3), batch_size=2)
    assert list(maps) == list(LEVELS)
    for weights in maps.values():
        assert weights.shape == (3, 2, 2)
        np.testing.assert_allclose(weights.sum((1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("who", ["calm", "looker"])
def test_pooled_features_are_a_row_of_floats_a_photograph(who: str, request: pytest.FixtureRequest) -> None:
    asked = request.getfixturevalue(who)
    rows = asked.pooled_features(tiny.pictures(3), batch_size=2)
    assert rows.shape == (3, sum(asked.model.config.content_widths.values())) and rows.dtype == np.float32
    assert not np.allclose(rows[0], rows[1], atol=1e-3)


def test_observing_gives_the_readouts_of_scoring_and_the_pooled_features(calm: Calm) -> None:
    pictures = tiny.pictures(3)
    seen = calm.observe(pictures, batch_size=2)
    readings = np.stack([seen.expectation, seen.regression], axis=1)
    np.testing.assert_allclose(readings, numbers(calm.score(pictures)), rtol=1e-5)
    np.testing.assert_allclose(seen.pooled, calm.pooled_features(pictures), rtol=1e-4, atol=1e-5)
    assert seen.tokens.shape[0] == 3 and seen.states.shape == (3, 32)


def test_scores_without_their_text_are_those_with_it(calm: Calm) -> None:
    pictures = tiny.pictures(3)
    unwritten = calm.score(pictures, batch_size=2, written=False)
    assert unwritten == [replace(one, text=None, raw="") for one in calm.score(pictures, batch_size=2)]


def test_a_shared_support_prompt_gives_the_scores_of_whole_prompts(calm: Calm) -> None:
    seen = calm.observe(tiny.pictures(5))
    given = [2.5, 8.0]
    expected, regressed = calm.in_context(seen.tokens[:2], given).score(seen.tokens[2:], batch_size=2)
    processor = calm._speaker
    ids = processor.tokenizer(processor.prompt(personal_messages(given), score=True), return_tensors="pt").input_ids
    for row in range(3):
        photographs = torch.cat([seen.tokens[:2], seen.tokens[2 + row : 3 + row]])
        whole = read_last(calm.model, calm.model.embed_prompt(ids, photographs), photographs[-1:])
        assert expected[row] == pytest.approx(whole.expectation.item(), abs=1e-4)
        assert regressed[row] == pytest.approx(whole.regression.item(), abs=1e-4)
    others = calm.in_context(seen.tokens[:2], [8.0, 2.5]).score(seen.tokens[2:])[0]
    assert np.abs(others - expected).max() > 1e-5


def test_more_rated_photographs_than_fit_are_an_error_that_says_how_many_do(calm: Calm) -> None:
    tokens = calm.observe(tiny.pictures(1)).tokens
    with pytest.raises(ContextError, match=r"at most (\d+) fit") as error:
        calm.in_context(tokens.expand(60, -1, -1), [5.0] * 60)
    most = int(str(error.value).split("at most ")[1].split()[0])
    calm.in_context(tokens.expand(most, -1, -1), [5.0] * most)
    with pytest.raises(ContextError):
        calm.in_context(tokens.expand(most + 1, -1, -1), [5.0] * (most + 1))
    with pytest.raises(ValueError, match="one score for each of 1"):
        calm.in_context(tokens, [5.0, 6.0])


def test_the_batch_does_not_change_results(calm: Calm) -> None:
    pictures = tiny.pictures(5)
    for size in (1, 2):
        np.testing.assert_allclose(
            numbers(calm.score(pictures, batch_size=size)), numbers(calm.score(pictures)), rtol=1e-4, atol=1e-4
        )
        whole = calm.pooled_features(pictures)
        np.testing.assert_allclose(calm.pooled_features(pictures, batch_size=size), whole, rtol=1e-4, atol=1e-4)
    one = [remedy.log_odds for remedy in calm.rank_remedies(pictures[1:2])[0]]
    among = [remedy.log_odds for remedy in calm.rank_remedies(pictures)[1]]
    assert one == pytest.approx(among, abs=1e-4)


def test_looking_does_not_change_what_is_said(calm: Calm) -> None:
    before = numbers(calm.score(tiny.pictures(2)))
    calm.attention(tiny.pictures(2))
    calm.attributes(tiny.pictures(2))
    np.testing.assert_array_equal(numbers(calm.score(tiny.pictures(2))), before)


def test_any_mode_of_picture_can_be_scored(calm: Calm) -> None:
    pictures = [tiny.picture(0).convert(mode) for mode in ("L", "RGBA", "CMYK", "P")]
    assert len(calm.score(pictures)) == 4


def test_a_pretrained_model_can_look_but_not_speak(looker: Calm) -> None:
    for speak in (looker.score, looker.comment, looker.suggest):
        with pytest.raises(ValueError, match="pre-trained only and cannot speak: name a fine-tuned model"):
            speak(tiny.pictures(1))


def test_no_photographs_is_an_error(calm: Calm) -> None:
    with pytest.raises(ValueError, match="no photographs were given"):
        calm.score([])


def test_a_missing_model_says_what_to_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="make repro"):
            Calm.from_pretrained(path)


def test_half_a_pretrained_model_is_refused(trained_world: Any) -> None:
    folder = trained_world.layout.pretrained("attributes").parent
    (folder / "alignment" / TRAINED).unlink()
    with pytest.raises(CheckpointError, match="alignment"):
        Calm.from_pretrained(folder)


def test_a_pretrained_model_that_lacks_a_tensor_is_refused(trained_world: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = trained_world.layout.pretrained("attributes").parent
    tensors = load_file(folder / "attributes" / TRAINED)
    del tensors["mfam.text_to_contrast.weight"]
    save_file(tensors, folder / "attributes" / TRAINED)
    with pytest.raises(CheckpointError, match=r"mfam\.text_to_contrast\.weight"):
        Calm.from_pretrained(folder)


def test_a_large_photograph_is_seen_at_the_size_that_training_saw(calm: Calm) -> None:
    grain = np.random.default_rng(5).integers(256, size=(60, 90, 3), dtype=np.uint8)
    large = Image.fromarray(grain).resize((1800, 1200), Image.Resampling.BICUBIC)
    assert calm.max_side == 288
    (score,), (stored,) = calm.score(large), calm.score(large.resize((288, 192), Image.Resampling.LANCZOS))
    assert score.regression == stored.regression and score.distribution == stored.distribution


def test_provenance_names_parts_weights_and_preprocessing(calm: Calm, trained_template: Any) -> None:
    provenance = calm.provenance
    assert {name: part["name"] for name, part in provenance["parts"].items()} == {
        "vision": trained_template.parts.vision,
        "language": trained_template.parts.language,
        "text": trained_template.parts.text,
    }
    assert provenance["checkpoint_sha256"] == checkpoint_sha256(trained_template.layout.finetuned("scores"))
    expected = {"size": [64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "resampling": "bicubic", "max_side": 288}
    expected |= {"dtype": "float32"}
    assert provenance["preprocessing"] == expected
