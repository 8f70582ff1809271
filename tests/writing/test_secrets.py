"""The key is in no file, log, cache, exception or lock: everything that `dvc repro` leaves behind is searched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from calm.writing.ledger import ledger_name
from tests.conftest import copied
from tests.writing.conftest import FEW, QUICK
from tests.writing.server import KEY, FakeOpenAI

WRONG = "sk-a-wrong-key-is-a-secret-too"


@pytest.fixture
def checkout(tmp_path: Path, server: FakeOpenAI) -> Path:
    """A checkout whose texts, of a few attributes, come from the server and are judged by a tiny text encoder."""
    from tests import tiny

    root = copied(tmp_path / "checkout", "calm", ".dvc", ".dvcignore", "dvc.yaml", "params.yaml")
    for path in (root / "calm/attributes/catalogue").glob("*.yaml"):
        if path.stem not in FEW:
            path.unlink()
    (root / ".dvc/config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    params = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    params["parts"]["text"] = tiny.save_parts(tmp_path / "parts").text
    params["attributes"]["texts"] = {
        "per_state": 2,
        "gate": {"accuracy": 0.0},
        "writer": {"provider": "openai", "base_url": server.url, **QUICK},
    }
    YAML(typ="safe").dump(params, root / "params.yaml")
    return root


def repro(root: Path, key: str | None) -> subprocess.CompletedProcess[str]:
    """`dvc repro generate_texts`, as chatty as DVC and the client can be."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OPENAI_LOG": "debug",
        "XDG_CACHE_HOME": str(root / "home"),
    }
    environment.pop("OPENAI_API_KEY", None)
    if key:
        environment["OPENAI_API_KEY"] = key
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--verbose", "generate_texts"],
        cwd=root,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )


def test_the_key_is_nowhere_in_what_a_run_leaves_behind(checkout: Path, server: FakeOpenAI) -> None:
    server.fault = lambda number, body: {3: "echo_key", 5: "500", 7: "not json"}.get(number)
    refused, done, again = (repro(checkout, key) for key in (WRONG, KEY, None))
    assert refused.returncode != 0 and "refused the key" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert again.returncode == 0 and "didn't change" in again.stdout + again.stderr
    assert "HTTP" in done.stderr  # the client's log was on
    said = "".join(one.stdout + one.stderr for one in (refused, done, again))
    files = [path for path in checkout.rglob("*") if path.is_file()]
    assert checkout / "dvc.lock" in files
    assert checkout / "data/ledger" / ledger_name(server.url) in files
    assert any(path.is_relative_to(checkout / ".dvc/cache") for path in files)
    for secret in (KEY, WRONG):
        assert secret not in said
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
