"""A server, a key, and a small taxonomy to write about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.layout import Layout
from calm.params import Params, parse_params
from calm.writing.settings import OpenAIWriter
from tests.writing.server import KEY, FakeOpenAI

REPOSITORY = Path(__file__).parents[2]
FEW = ("brightness", "noise", "tilt")
BATCH = {"kind": "batch", "poll_seconds": 0.01, "wait_hours": 1.0}
# Words in common are no proof of a common meaning: only equal bags of words count as one here, and the text encoder's
# part of the checks is tested by itself.
CHECKS = {"duplicate": 0.999, "margin": 2.0}
QUICK: dict[str, Any] = {"retries": 2, "timeout_seconds": 10.0, "texts_per_request": 4, "checks": CHECKS}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A server that knows the key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)  # seconds
    fake = FakeOpenAI().start()
    yield fake
    fake.stop()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "checkout")


@pytest.fixture(scope="session")
def few() -> Taxonomy:
    """Three attributes, nine states."""
    return Taxonomy(tuple(one for one in taxonomy().attributes if one.name in FEW))


def embed(texts: Sequence[str]) -> np.ndarray:
    """Hashed bags of words and pairs of words as unit vectors: quick, and the same everywhere."""
    from sklearn.feature_extraction.text import HashingVectorizer

    found: np.ndarray = HashingVectorizer(n_features=512, ngram_range=(1, 2)).transform(texts).toarray()
    return found


def writer_params(url: str, per_state: int = 6, paraphrases: int = 3, accuracy: float = 0.0, **writer: Any) -> Params:
    """params.yaml with texts from the server."""
    raw = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    raw["attributes"]["texts"] = {
        "per_state": per_state,
        "gate": {"accuracy": accuracy},
        "writer": {"provider": "openai", "base_url": url, **QUICK, **writer},
    }
    raw["instructions"]["paraphrases"] = paraphrases
    return parse_params(raw, "test")


def settings(url: str, **writer: Any) -> OpenAIWriter:
    """The writer's section alone."""
    found = writer_params(url, **writer).attributes.texts.writer
    assert isinstance(found, OpenAIWriter)
    return found


@pytest.fixture
def run(layout: Layout, few: Taxonomy, server: FakeOpenAI) -> Callable[..., Layout]:
    """Run the stage against the server: `run(root=None, **settings)`."""
    from calm.writing.stage import generate_texts

    def run_stage(root: Path | None = None, **changes: Any) -> Layout:
        where = Layout(root) if root else layout
        generate_texts(writer_params(server.url, **changes), where, embed, few)
        return where

    return run_stage
