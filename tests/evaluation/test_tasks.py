"""Every task, judged with a model that knows the truth and one that knows nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from calm.assistant import Suggestion
from calm.attributes.edits import Edit
from calm.attributes.grammar import comment, naming_rules, sound_named, states_named
from calm.attributes.taxonomy import taxonomy
from calm.data.store import tables
from calm.evaluation import tasks
from calm.evaluation.base import Bench, EvaluationError
from calm.evaluation.stage import evaluate, find_task, settings
from calm.evaluation.statistics.decisions import elsewhere
from calm.evaluation.tasks import attributes
from calm.io import read_table, write_table
from calm.report.tables import section
from calm.seeds import stream
from calm.settings import ParamsError
from tests.evaluation.calm_world import DATASET, PHOTOS, TRAIN, VIEWS, FakeCalm, World, pixel_hash, with_settings

TASKS = ("attributes", "scoring", "commenting", "personalised", "suggesting")


def judged(world: World, task: str, model: FakeCalm) -> dict[str, Any]:
    evaluate(task, world.params, world.layout, model=model)
    found: dict[str, Any] = json.loads((world.layout.result(task) / "metrics.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def marked_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edited copies carry their edits, so that an oracle can know them; the pixels stay as they are."""
    plain = attributes.edited_copies

    def marked(photograph: Image.Image, edits: list[list[Edit]]) -> list[Image.Image]:
        copies = plain(photograph, edits)
        for copy, of_copy in zip(copies, edits, strict=True):
            copy.info["edits"] = tuple(of_copy)
        return copies

    monkeypatch.setattr(attributes, "edited_copies", marked)
    monkeypatch.setattr("calm.evaluation.tasks.suggesting.edited_copies", marked)


@pytest.mark.usefixtures("marked_copies")
def test_attributes_are_all_recognised_by_an_oracle_and_by_chance_without_knowledge(world: World) -> None:
    known = judged(world, "attributes", world.oracle())
    guessed = judged(world, "attributes", world.blind())
    for level in ("low", "middle", "high"):
        assert known[level]["balanced_accuracy"]["value"] == 1
        chance = np.mean([1 / len(one.all_states) for one in taxonomy().at(level)])
        assert guessed[level]["chance"] == pytest.approx(chance, abs=1e-6)
        assert abs(guessed[level]["balanced_accuracy"]["value"] - chance) < 0.12
        assert set(known[level]["attribute"]) == {one.name for one in taxonomy().at(level)}


@pytest.mark.usefixtures("marked_copies")
def test_attributes_shows_every_state_of_every_unedited_test_photograph_once(world: World) -> None:
    judged(world, "attributes", world.oracle())
    rows = pd.read_parquet(world.layout.result("attributes") / "predictions.parquet")
    states = sum(len(one.all_states) for one in taxonomy().attributes)
    assert len(rows) == (PHOTOS - TRAIN) * states
    assert not rows.duplicated(["item_id", "attribute", "state"]).any()
    assert not rows["item_id"].str.contains("#").any()
    assert (rows["severity"].isna() == (rows["state"] == "unchanged")).all()


def test_scoring_is_perfect_for_an_oracle_and_near_zero_without_knowledge(world: World) -> None:
    known = judged(world, "scoring", world.oracle())
    guessed = judged(world, "scoring", world.blind())
    assert known["labels"] == "synthetic"
    assert known["items"] == (PHOTOS - TRAIN) * (VIEWS + 1) and known["groups"] == PHOTOS - TRAIN
    for readout in ("text", "expectation", "regression"):
        assert known[readout]["srcc"]["value"] == pytest.approx(1) and known[readout]["plcc"]["value"] == pytest.approx(
            1
        )
        assert known[readout]["mae"]["value"] == 0 < known["baseline"]["mae"]
        assert guessed[readout]["srcc"]["low"] < 0 < guessed[readout]["srcc"]["high"]
        assert guessed[readout]["mae"]["value"] > known["baseline"]["mae"]
    # The oracle's features name what was edited: a regression on them ranks, but not as one who knows the score.
    assert 0.2 < known["ridge"]["srcc"]["value"] < 1
    assert known["compared"]["regression_minus_ridge"]["srcc"]["low"] > 0
    assert guessed["ridge"]["srcc"]["low"] < 0 < guessed["ridge"]["srcc"]["high"]


def rescaled(world: World, low: float, high: float, steps: int) -> None:
    """Every crowd's score given on another scale, by votes of which all but one are on the nearest step."""
    file = world.layout.prepared(DATASET) / "ratings.parquet"
    frame = read_table(file, tables.RATING)
    place = (frame["score"] - 1) / 9
    frame["score"], frame["score_min"], frame["score_max"] = low + place * (high - low), low, high
    nearest = [round(float(p) * (steps - 1)) for p in place.clip(0, 1)]
    crowd = frame["rater_id"].isna()
    votes = [[9 * (step == at) + (step == 0) for step in range(steps)] for at in nearest]
    frame["votes"] = pd.Series([v if c else None for v, c in zip(votes, crowd, strict=True)], dtype=object)
    write_table(file, frame, tables.RATING)


def test_scores_of_other_scales_are_judged_on_ours(world: World) -> None:
    plain = judged(world, "scoring", world.oracle())
    assert plain["cut"] == {DATASET: 5.0}
    assert plain["emd"]["value"] is None and "votes" in plain["emd"]["reason"]
    rescaled(world, 0, 100, 7)
    found = judged(world, "scoring", world.oracle())
    assert found["cut"] == {DATASET: 5.5}
    for name in ("srcc", "mae", "calibration_error"):
        assert found["regression"][name]["value"] == pytest.approx(plain["regression"][name]["value"], abs=1e-6)
    assert found["regression"]["accuracy"]["value"] == 1 > found["baseline"]["accuracy"] >= 0.5


def test_the_scores_distribution_is_held_against_the_votes(world: World) -> None:
    rescaled(world, 1, 10, 10)

    class Voting(FakeCalm):
        def score(self, images: Any, *options: Any, **named: Any) -> Any:
            found = []
            for one in super().score(images):
                step = round((min(max(one.expectation, 1), 10) - 1) / 9 * 9)
                shares = tuple(0.9 * (i == step) + 0.1 * (i == 0) for i in range(10))
                found.append(dataclasses.replace(one, distribution=shares))
            return found

    known = judged(world, "scoring", Voting(world, knows=True))["emd"]
    blind = judged(world, "scoring", Voting(world, knows=False))
    assert known["value"] == pytest.approx(0, abs=1e-6) and known["n"] == (PHOTOS - TRAIN) * (VIEWS + 1)
    assert blind["emd"]["low"] > 0 and blind["baseline"]["emd"] > 0


def test_readouts_are_compared_on_the_same_photographs(world: World) -> None:
    class Torn(FakeCalm):
        def score(self, images: Any, *options: Any, **named: Any) -> Any:
            noise = FakeCalm(self.world, knows=False).score(images)
            pairs = zip(super().score(images), noise, strict=True)
            return [dataclasses.replace(s, expectation=n.expectation, text=None) for s, n in pairs]

    found = judged(world, "scoring", Torn(world, knows=True))["compared"]
    gain = found["regression_minus_expectation"]["srcc"]
    assert gain["low"] > 0 and gain["p"] < 0.05
    assert found["regression_minus_text"]["srcc"]["value"] is None


def test_texts_without_a_score_are_counted_and_left_out(world: World) -> None:
    class Mumbling(FakeCalm):
        def score(self, images: Any, *options: Any, **named: Any) -> Any:
            scores = super().score(images)
            return [dataclasses.replace(s, text=None, raw="hm") if i % 2 else s for i, s in enumerate(scores)]

    found = judged(world, "scoring", Mumbling(world, knows=True))
    assert found["text"]["unparseable"] == 0.5
    assert found["text"]["srcc"]["n"] == found["items"] / 2
    assert found["expectation"]["srcc"]["n"] == found["items"]


def test_a_model_that_always_says_the_same_has_no_correlation_and_a_reason(world: World) -> None:
    class Constant(FakeCalm):
        def score(self, images: Any, *options: Any, **named: Any) -> Any:
            return [dataclasses.replace(s, text=None, expectation=5.0, regression=5.0) for s in super().score(images)]

    found = judged(world, "scoring", Constant(world, knows=True))
    assert found["expectation"]["srcc"]["value"] is None and "equal" in found["expectation"]["srcc"]["reason"]
    assert found["text"]["mae"]["value"] is None and found["text"]["unparseable"] == 1


@pytest.mark.usefixtures("kept_jar")
def test_commenting_rewards_the_right_comment_on_the_right_photograph(world: World) -> None:
    known = judged(world, "commenting", world.oracle())
    assert known["bleu_4"]["value"] == pytest.approx(1, abs=1e-4) and known["rouge_l"]["value"] == pytest.approx(1)
    assert known["bleu_4"]["shuffled"] < 0.5 and known["cider"]["shuffled"] < known["cider"]["value"] / 3
    assert known["names_an_edit"]["state"]["value"] > 0.9
    assert known["names_an_edit"]["state"]["shuffled"] < 0.5
    assert known["spice"]["value"] is None and "CALM_CORENLP_DIR" in known["spice"]["reason"]
    assert known["labels"] == "synthetic"
    guessed = judged(world, "commenting", world.blind())
    assert guessed["bleu_4"]["value"] < 0.1 and guessed["names_an_edit"]["state"]["value"] == 0
    assert guessed["meteor"]["value"] == guessed["meteor"]["shuffled"]


def test_verdicts_are_held_against_peoples_scores(world: World) -> None:
    class Judge(FakeCalm):
        def comment(self, images: Sequence[Image.Image], batch_size: int = 16, max_new_tokens: int = 40) -> list[str]:
            return [self._said(self.world.scores[pixel_hash(image)], image) for image in images]

        def _said(self, score: float, image: Image.Image) -> str:
            low, high = np.quantile(list(self.world.scores.values()), (0.3, 0.6))
            if not self.knows:
                return comment([], self._rng(image), standing=("low", "middle", "high")[self._rng(image).integers(3)])
            edits = [Edit("sharpness", "blurred", 0.9, 1)] if score < low else []
            return comment(edits, self._rng(image), standing="high" if score > high else "middle")

    asked = dataclasses.replace(world, params=with_settings(world.params, "commenting", verdicts=1000))
    known, guessed = (judged(asked, "commenting", Judge(asked, knows=knows))["verdicts"] for knows in (True, False))
    assert known["given"]["value"] == pytest.approx(0.7, abs=0.15) and known["srcc"]["value"] > 0.75
    assert set(known["scores"]) == set(known["named"]) == {"middle", "high"}
    assert known["scores"]["middle"] < known["scores"]["high"]
    assert guessed["given"]["value"] == 1 and guessed["srcc"]["low"] < 0 < guessed["srcc"]["high"]
    assert "verdicts" not in judged(world, "commenting", world.oracle())


def test_most_comments_of_the_grammar_name_their_edit_and_praise_names_none() -> None:
    rules = naming_rules(taxonomy())
    named = total = 0
    for one in taxonomy().attributes:
        for state in one.states:
            text = comment([Edit(one.name, state.name, 0.9, 1)], stream(0, one.name, state.name))
            named += f"{one.name}: {state.name}" in states_named(text, rules)
            total += 1
    assert named / total > 0.9
    praise = [states_named(comment((), stream(i, "praise")), rules) for i in range(50)]
    assert np.mean([bool(found) for found in praise]) < 0.02
    assert states_named("Light and dark are well separated.", rules) == []
    assert sound_named("Light and dark are well separated.", rules) == ["contrast: unchanged"]


def test_suggestions_of_an_oracle_name_the_edit_and_those_of_chance_seldom(world: World) -> None:
    known = judged(world, "suggesting", world.oracle())
    guessed = judged(world, "suggesting", world.blind())
    for name in ("attribute_top1", "attribute_top3", "state_top1", "state_top3"):
        assert known[name]["value"] == 1
        assert known[name]["shuffled"] < 0.6 and known[name]["chance"] < 0.35
        assert guessed[name]["value"] < known[name]["chance"] + 0.25
    assert known["unedited"]["sure_when_edited_auc"] == 1
    assert known["unedited"]["items"] == PHOTOS - TRAIN


def test_flaws_are_told_of_photographs_as_they_are_held_against_peoples_scores(world: World) -> None:
    class Critic(FakeCalm):
        def suggest(self, images: Sequence[Image.Image], top: int = 3) -> list[list[Suggestion]]:
            flaw, none = Suggestion("sharpness", "blurred", "Focus.", 0.9), Suggestion(None, None, "-", 1.0)
            low = np.median([self.world.scores[key] for key in self.world.scores if not self.world.edits.get(key)])
            return [[flaw if self.world.scores[pixel_hash(image)] < low else none] for image in images]

    asked = dataclasses.replace(world, params=with_settings(world.params, "suggesting", rated=1000))
    metrics = judged(asked, "suggesting", Critic(asked, knows=True))
    found = metrics["rated"]
    assert found["items"] == PHOTOS - TRAIN and found["labels"] == "synthetic"
    told = section("suggesting", metrics | {"rated": found | {"labels": "human"}})
    assert [told.judged_by(row) for row in (told.rows[0], told.rows[-1])] == ["exact", "human"]
    assert told.rows[-1].told == f"{told.rows[-1].label} (human labels)" and told.rows[0].told == told.rows[0].label
    assert found["lowest_tenth"]["value"] == 1 and found["upper_half"]["value"] < 0.4
    assert "rated" not in judged(world, "suggesting", world.oracle())


@pytest.mark.usefixtures("marked_copies")
def test_every_way_of_suggesting_is_judged_alike(world: World) -> None:
    known = judged(world, "suggesting", world.oracle())
    guessed = judged(world, "suggesting", world.blind())
    assert known["protocol"] == "calm-suggesting-2"
    for way in ("suggested", "language"):
        found = known["decided"][way]
        assert found["unedited_left_alone"]["value"] == 1 and found["edited_left_alone"]["value"] == 0
        assert found["state"]["precision"]["value"] > 0.9 and found["state"]["recall"]["value"] > 0.9
        assert found["shuffled"]["state"]["f1"]["value"] < 0.6
    assert known["language"]["state_top1"]["value"] == 1
    assert known["language"]["state_top1"]["over_shuffled"]["low"] > 0
    blind = guessed["decided"]
    for way in ("suggested", "language"):
        assert (blind[way]["state"]["precision"]["value"] or 0) < 0.4


def test_chance_of_suggesting_is_that_of_a_random_ranking(drawn: World) -> None:
    from calm.evaluation.tasks.suggesting import hit_table

    labels = [f"{one.name}: {state.name}" for one in taxonomy().attributes for state in one.states]
    rng = np.random.default_rng(0)
    ranked = [list(rng.permutation(labels)) for _ in range(4000)]
    frame = pd.DataFrame({"dataset": DATASET, "group": [str(i) for i in range(4000)], "suggested": ranked})
    frame["edits"] = [[labels[0], labels[-1]]] * 4000
    hits = hit_table(frame, taxonomy(), list(rng.permutation(4000)), "suggested").mean()
    for name in ("attribute_top1", "state_top1", "attribute_top3", "state_top3"):
        assert hits[name] == pytest.approx(hits[f"{name}_uniform"], abs=0.025)


@pytest.mark.usefixtures("marked_copies")
def test_suggesting_edits_photographs_itself_where_the_dataset_has_no_views(world: World) -> None:
    listed = world.layout.lists / "scores.parquet"
    (world.layout.lists / "unlabelled.parquet").replace(listed)
    found = judged(world, "suggesting", world.oracle())
    assert found["items"] == PHOTOS - TRAIN and found["attribute_top1"]["value"] == 1
    assert (
        pd.read_parquet(world.layout.result("suggesting") / "predictions.parquet")["made_here"].sum() == found["items"]
    )


def test_shuffling_gives_every_photograph_anothers_row() -> None:
    groups = ["a"] * 3 + ["b"] * 4 + ["c"]
    swap = elsewhere(groups, np.random.default_rng(0))
    assert sorted(swap) == list(range(8))
    assert all(groups[i] != groups[j] for i, j in enumerate(swap))
    with pytest.raises(ValueError, match="one group"):
        elsewhere(["a", "a"], np.random.default_rng(0))


@pytest.mark.parametrize("task", ["attributes", "scoring", "personalised", "suggesting"])
def test_a_task_writes_the_same_bytes_twice(world: World, task: str) -> None:
    def written() -> dict[str, bytes]:
        evaluate(task, world.params, world.layout, model=world.blind())
        folder = world.layout.result(task)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = written()
    assert {"metrics.json", "predictions.parquet"} <= set(first)
    drawn = {Path(name).suffix for name in first} & {".svg", ".csv"}
    assert len(drawn) == 2 or task in ("commenting", "suggesting")  # whose figures are all in the report's tables
    assert written() == first


def test_every_headline_points_at_a_figure(world: World) -> None:
    asked = dataclasses.replace(world, params=with_settings(world.params, "suggesting", rated=1000))
    for task in ("scoring", "personalised", "suggesting"):
        metrics = judged(asked, task, asked.oracle())
        for headline in find_task(task).headlines:
            assert "value" in at(metrics, headline.path), headline
            assert all(isinstance(at(metrics, path), float | None) for _, path in headline.beside)


def at(metrics: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        metrics = metrics[key]
    return metrics


def test_a_task_is_one_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "counting.py").write_text(
        "import pandas as pd, pyarrow as pa\n"
        "from calm.evaluation.base import Headline, Outcome, Task\n"
        "from calm.evaluation.settings import TaskSettings\n"
        "from calm.settings import PositiveInt\n"
        "class CountingSettings(TaskSettings):\n"
        "    most: PositiveInt\n"
        "def run(bench):\n"
        "    rows = bench.at_most(bench.items('scores'), bench.settings.most)\n"
        "    schema = pa.schema([pa.field('item_id', pa.string(), nullable=False)])\n"
        "    return Outcome({'items': {'value': len(rows)}}, rows[['item_id']], schema)\n"
        "TASK = Task('Counting', 'How many?', (Headline('items', 'items'),), run, CountingSettings)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "tasks")])
    params = with_settings(world.params, "counting", model="models/any", most=7)
    evaluate("counting", params, world.layout, model=world.oracle())
    assert json.loads((world.layout.result("counting") / "metrics.json").read_text())["items"]["value"] == 7
    with pytest.raises(ParamsError, match=r"evaluation\.tasks\.counting\.most"):
        evaluate("counting", with_settings(params, "counting", most=0), world.layout, model=world.oracle())


@pytest.mark.parametrize(
    ("task", "wrong", "key"),
    [
        ("scoring", {"max_items": 96}, "scoring.max_items: unknown key"),
        ("suggesting", {"max_new_tokens": 40}, "suggesting.max_new_tokens: unknown key"),
        ("commenting", {"max_item": 96}, "commenting.max_item: unknown key"),
        ("commenting", {"max_items": "many"}, "commenting.max_items"),
        ("personalised", {"support": [0]}, "personalised.support"),
        ("personalised", {"in_context": [11]}, "personalised.in_context"),
        ("attributes", {"model": None}, "attributes.model"),
    ],
)
def test_settings_that_a_task_does_not_know_or_that_are_impossible_name_their_key(
    world: World, task: str, wrong: dict[str, Any], key: str
) -> None:
    with pytest.raises(ParamsError) as error:
        evaluate(task, with_settings(world.params, task, **wrong), world.layout, model=world.oracle())
    assert f"evaluation.tasks.{key}" in str(error.value)


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_of_a_task_has_to_be_given(world: World, task: str) -> None:
    given = world.params.evaluation.tasks[task]
    for key in given:
        fewer = {task: {name: value for name, value in given.items() if name != key}}
        evaluation = world.params.evaluation.model_copy(update={"tasks": fewer})
        with pytest.raises(ParamsError) as error:
            settings(task, world.params.model_copy(update={"evaluation": evaluation}))
        assert f"evaluation.tasks.{task}.{key}: missing" in str(error.value)


def test_tasks_that_generate_text_do_so_for_max_items(world: World) -> None:
    fewer = with_settings(world.params, "suggesting", max_items=3)
    evaluate("suggesting", fewer, world.layout, model=world.oracle())
    rows = pd.read_parquet(world.layout.result("suggesting") / "predictions.parquet")
    assert rows["edits"].notna().value_counts().to_dict() == {True: 3, False: 3}


def test_unknown_tasks_say_what_is_missing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent.py").write_text("")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    with pytest.raises(EvaluationError, match=r"calm/evaluation/tasks/humming\.py does not exist"):
        find_task("humming")
    with pytest.raises(EvaluationError, match="defines no TASK"):
        find_task("silent")
    with pytest.raises(EvaluationError, match="cannot be a task"):
        find_task("../scoring")
    fewer = world.params.evaluation.model_copy(update={"tasks": {}})
    with pytest.raises(EvaluationError, match="no entry 'scoring'"):
        evaluate("scoring", world.params.model_copy(update={"evaluation": fewer}), world.layout, model=world.oracle())


def test_a_task_that_fails_leaves_the_earlier_result(world: World) -> None:
    before = judged(world, "scoring", world.oracle())

    class Failing(FakeCalm):
        def score(self, images: Any, *options: Any, **named: Any) -> Any:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        evaluate("scoring", world.params, world.layout, model=Failing(world, knows=True))
    assert json.loads((world.layout.result("scoring") / "metrics.json").read_text(encoding="utf-8")) == before
    assert sorted(path.name for path in (world.layout.root / "results").iterdir()) == ["scoring"]


def test_a_grey_photograph_is_not_asked_about_colours_it_cannot_lose(world: World) -> None:
    from calm.attributes.edits import lacking

    assert lacking(Image.new("L", (64, 64), 90)) == {"colour"} and not lacking(Image.new("RGB", (64, 64), "teal"))
    picture = Image.linear_gradient("L").resize((96, 72)).convert("RGB")
    own = settings("attributes", world.params)
    bench = Bench("attributes", world.params, world.layout, world.blind(), own)
    object.__setattr__(bench, "photograph", lambda *key: picture)
    one = pd.DataFrame({"dataset": [DATASET], "item_id": ["grey"], "group": ["g"]})
    (predicted,) = attributes._recognised(bench, [bench.model], taxonomy(), one)
    shown = set(zip(predicted["attribute"], predicted["state"], strict=True))
    for attribute in taxonomy().attributes:
        for state in attribute.states:
            assert ((attribute.name, state.name) in shown) == ("colour" not in state.touches)
