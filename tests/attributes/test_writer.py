"""Stage generate_texts: distinct texts for every state, the same bytes every time, clear errors."""

from pathlib import Path

import pytest

from calm.attributes.taxonomy import taxonomy
from calm.attributes.texts import TextBank
from calm.attributes.writer import GrammarProvider, generate_texts, provider_of, write_texts
from calm.data.schema import GUIDANCE
from calm.io import read_table, sha256_text
from calm.layout import Layout
from calm.params import OpenAIWriter, Params, ParamsError, load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_stage_writes_the_table_and_repeats_its_bytes(params: Params, tmp_path: Path) -> None:
    layouts = [Layout(tmp_path / name) for name in ("one", "two")]
    for layout in layouts:
        generate_texts(params, layout)
    assert layouts[0].texts.read_bytes() == layouts[1].texts.read_bytes()
    frame = read_table(layouts[0].texts, GUIDANCE)
    counts = frame.groupby(["attribute", "state"]).text.nunique()
    assert len(counts) == sum(len(attribute.all_states) for attribute in taxonomy().attributes)
    assert (counts == params.attributes.texts.per_state).all()
    assert (frame.text.map(sha256_text) == frame.text_sha256).all()
    assert frame.groupby("prompt_sha256").state.nunique().max() == 1


def test_another_seed_gives_other_texts() -> None:
    provider = GrammarProvider(taxonomy())
    one, other = (write_texts(provider, 4, seed, taxonomy()) for seed in (1, 2))
    assert (one.text != other.text).mean() > 0.5
    assert (one.prompt_sha256 == other.prompt_sha256).all()


def test_more_texts_than_the_grammar_has_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"only \d+ texts for 'unchanged' of .* attributes.texts.per_state"):
        write_texts(GrammarProvider(taxonomy()), 100_000, 1, taxonomy())


def test_a_provider_that_repeats_itself_is_refused() -> None:
    class Parrot(GrammarProvider):
        def write(self, request):  # type: ignore[no-untyped-def]
            return ["Same."] * request.count

    with pytest.raises(ValueError, match="1 distinct texts of 3"):
        write_texts(Parrot(taxonomy()), 3, 1, taxonomy())


def test_the_api_provider_says_that_it_is_not_available_yet() -> None:
    with pytest.raises(ParamsError, match=r"attributes\.texts\.writer\.provider: 'openai' is not available yet"):
        provider_of(OpenAIWriter(provider="openai"), taxonomy())


def test_bank_gives_the_texts_of_a_state(params: Params) -> None:
    frame = write_texts(GrammarProvider(taxonomy()), 5, 1, taxonomy())
    bank = TextBank(frame)
    assert len(bank) == len(frame) == 5 * len(bank.states)
    expected = frame[(frame.attribute == "tilt") & (frame.state == "clockwise")].text.tolist()
    assert bank.texts("tilt", "clockwise") == expected
    with pytest.raises(ValueError, match="unknown attribute 'moon'"):
        bank.texts("moon", "full")


def test_bank_refuses_gaps_and_strangers() -> None:
    frame = write_texts(GrammarProvider(taxonomy()), 2, 1, taxonomy())
    with pytest.raises(ValueError, match=r"no guidance texts for noise\.noisy"):
        TextBank(frame[frame.state != "noisy"])
    with pytest.raises(ValueError, match="'noise' has no state 'loud'"):
        TextBank(frame.replace({"state": {"noisy": "loud"}}))
