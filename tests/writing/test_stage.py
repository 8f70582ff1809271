"""Stage generate_texts: same texts every time, only what changed is asked for, and what it will cost is told first."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm.attributes.grammar import GRAMMAR
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.cli import app
from calm.cli.stages import THREAD_VARIABLES
from calm.data.store.tables import GUIDANCE, PROMPT, REJECTED_TEXT
from calm.instructions import PROMPTS
from calm.instructions.stage import ways_of_asking
from calm.io import read_table, sha256_text
from calm.layout import Layout
from calm.params import Params, load_params
from calm.training.losses import TextBank
from calm.writing.stage import dry_run, generate_texts
from tests.writing.conftest import REPOSITORY, embed, writer_params
from tests.writing.server import FakeOpenAI


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


def with_paraphrases(params: Params, count: int) -> Params:
    return params.model_copy(update={"instructions": params.instructions.model_copy(update={"paraphrases": count})})


def with_per_state(params: Params, count: int, seed: int = 17) -> Params:
    texts = params.attributes.texts.model_copy(update={"per_state": count})
    attributes = params.attributes.model_copy(update={"texts": texts})
    return params.model_copy(update={"attributes": attributes, "seed": seed})


def test_the_grammar_writes_the_tables_and_repeats_their_bytes(params: Params, tmp_path: Path) -> None:
    layouts = [Layout(tmp_path / name) for name in ("one", "two")]
    for layout in layouts:
        generate_texts(params, layout, embed)
    names = ("texts", "prompts", "rejected_texts", "text_gate", "text_confusion")
    one, two = ({name: getattr(layout, name).read_bytes() for name in names} for layout in layouts)
    assert one == two
    frame = read_table(layouts[0].texts, GUIDANCE)
    counts = frame.groupby(["attribute", "state"]).text.nunique()
    assert len(counts) == sum(len(attribute.all_states) for attribute in taxonomy().attributes)
    assert (counts == params.attributes.texts.per_state).all()
    assert (frame.text.map(sha256_text) == frame.text_sha256).all()
    assert frame.groupby("prompt_sha256").state.nunique().max() == 1
    assert (set(frame.provider), set(frame.model)) == ({"grammar"}, {GRAMMAR})
    assert read_table(layouts[0].rejected_texts, REJECTED_TEXT).empty
    assert not layouts[0].ledger.exists()


def test_another_seed_gives_other_texts(params: Params, tmp_path: Path, few: Taxonomy) -> None:
    frames = []
    for seed in (1, 2):
        layout = Layout(tmp_path / str(seed))
        generate_texts(with_per_state(params, 4, seed), layout, embed, few)
        frames.append(read_table(layout.texts, GUIDANCE))
    assert (frames[0].text != frames[1].text).mean() > 0.5


def test_more_texts_than_the_grammar_has_are_an_error(params: Params, layout: Layout) -> None:
    with pytest.raises(ValueError, match=r"only \d+ texts for 'unchanged' of .* attributes\.texts\.per_state"):
        generate_texts(with_per_state(params, 100_000), layout, embed)
    with pytest.raises(ValueError, match=r"only \d+ texts for 'caption' of 'prompt': lower instructions\.paraphrases"):
        generate_texts(with_paraphrases(params, 1000), layout, embed)


def test_prompts_begin_with_the_one_that_evaluation_uses(params: Params, layout: Layout, few: Taxonomy) -> None:
    varied = with_paraphrases(params, 5)
    generate_texts(varied, layout, embed, few)
    frame = read_table(layout.prompts, PROMPT)
    ways = ways_of_asking(varied, layout)
    assert list(ways) == list(PROMPTS)
    for task, prompt in PROMPTS.items():
        mine = frame[frame.task == task]
        assert mine.prompt.iloc[0] == prompt
        assert mine.provider.tolist() == ["calm"] + 4 * ["grammar"]
        assert ways[task] == mine.prompt.tolist()
        assert len(set(ways[task])) == 5
    with pytest.raises(ValueError, match=r"5 prompts for 'caption', instructions\.paraphrases asks for 6"):
        ways_of_asking(with_paraphrases(params, 6), layout)
    assert ways_of_asking(with_paraphrases(params, 1), Layout(layout.root / "empty"))["score"] == [PROMPTS["score"]]


def test_bank_gives_the_texts_of_a_state(params: Params, layout: Layout) -> None:
    generate_texts(with_per_state(params, 5), layout, embed)
    frame = read_table(layout.texts, GUIDANCE)
    bank = TextBank(frame)
    assert len(bank) == len(frame) == 5 * len(bank.states)
    expected = frame[(frame.attribute == "tilt") & (frame.state == "clockwise")].text.tolist()
    assert bank.texts("tilt", "clockwise") == expected
    with pytest.raises(ValueError, match="unknown attribute 'moon'"):
        bank.texts("moon", "full")
    with pytest.raises(ValueError, match=r"no guidance texts for noise\.noisy"):
        TextBank(frame[frame.state != "noisy"])
    with pytest.raises(ValueError, match="'noise' has no state 'loud'"):
        TextBank(frame.replace({"state": {"noisy": "loud"}}))


def test_changing_one_attributes_words_asks_for_that_attribute_alone(
    server: FakeOpenAI, layout: Layout, few: Taxonomy
) -> None:
    generate_texts(writer_params(server.url), layout, embed, few)
    asked = len(server.received)
    noise = few.attribute("noise")
    phrases = ("no grain is seen", *noise.unchanged.phrases)
    changed = noise.model_copy(update={"unchanged": noise.unchanged.model_copy(update={"phrases": phrases})})
    others = tuple(changed if one is noise else one for one in few.attributes)
    generate_texts(writer_params(server.url), layout, embed, Taxonomy(others))
    anew = [body["messages"][1]["content"] for body in server.received[asked:]]
    assert anew
    assert all("Attribute: noise\nLevel: low\nState: unchanged" in text for text in anew)


def test_more_texts_per_state_keep_those_there_are_in_the_ledger(
    server: FakeOpenAI, layout: Layout, few: Taxonomy
) -> None:
    generate_texts(writer_params(server.url, paraphrases=3), layout, embed, few)
    asked = len(server.received)
    generate_texts(writer_params(server.url, paraphrases=5), layout, embed, few)
    assert all("Task: " in body["messages"][1]["content"] for body in server.received[asked:])


def test_a_dry_run_sends_nothing_and_tells_what_a_run_then_does(
    server: FakeOpenAI, layout: Layout, few: Taxonomy
) -> None:
    params = writer_params(server.url, per_state=6, paraphrases=3)
    before = dry_run(params, layout)
    assert server.received == []
    assert not layout.root.exists()
    assert "gpt-3.5-turbo at http://127.0.0.1" in before
    assert "352 texts for 57 states and 5 ways of asking" in before
    requests = int(re.search(r"requests +([\d,]+), of which the ledger answers 0$", before, re.M).group(1))  # type: ignore[union-attr]
    assert "0.5 and 1.5 USD per million tokens, 2026-06" in before
    assert "within the budget" in before
    generate_texts(params, layout, embed)
    firsts = [json.dumps(body["messages"]) for body in server.received if "exist already" not in json.dumps(body)]
    assert len(firsts) >= requests
    assert f"of which the ledger answers {requests}\n" in dry_run(params, layout)
    assert "above the budget: nothing would be sent" in dry_run(
        writer_params(server.url, budget_usd=0.0, seed=3), layout
    )


def test_the_command_has_a_dry_run(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.root.mkdir()
    shutil.copy(REPOSITORY / "params.yaml", layout.root)
    monkeypatch.chdir(layout.root)
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")
    done = CliRunner().invoke(app, ["generate-texts", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert done.output == dry_run(load_params(), layout) + "\n"


def test_a_dry_run_of_the_grammar_says_that_it_is_free(params: Params, layout: Layout) -> None:
    assert "nothing is paid" in dry_run(params, layout)


def test_the_ceiling_is_above_what_is_paid(run: Callable[..., Layout], server: FakeOpenAI, layout: Layout) -> None:
    """The server counts 100 tokens for a prompt and 40 for an answer: fewer than any bound may say."""
    run()
    for line in next(layout.ledger.iterdir()).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        assert entry["usage"]["prompt_tokens"] < sum(len(m["content"]) for m in entry["request"]["messages"])
        assert entry["usage"]["completion_tokens"] < entry["request"]["max_tokens"]
