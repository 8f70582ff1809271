"""What one machine has computed another pulls from an S3 bucket (docs/cluster.md)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.conftest import ABSENT, REMOTE, installed

BUCKET = "calm"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
PIPELINE = """\
stages:
  train:
    cmd: mkdir -p models && echo weights > models/weights && echo ran >> ran
    outs: [models]
"""


# Says where it listens; then has dvc do what each line of its standard input says, and tells the exit code.
SERVER = f"""
import json, os, sys
import boto3
from dvc.cli import main
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
address = f"http://{{host}}:{{port}}"
boto3.client("s3", endpoint_url=address).create_bucket(Bucket={BUCKET!r})
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
print(address, file=answers)
for line in sys.stdin:
    folder, *arguments = json.loads(line)
    os.chdir(folder)
    print(main(arguments), file=answers)
server.stop()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Of an empty bucket, with a dvc that speaks S3."""
    if not (installed("dvc_s3", REMOTE) and installed("moto", REMOTE)):
        pytest.skip(f"dvc-s3 or moto {ABSENT}")
    own = {"PYTHONPATH": str(REMOTE), "NO_PROXY": "127.0.0.1", "XDG_CACHE_HOME": str(tmp_path / ".home")}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, **KEYS, **own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdin is not None
        yield started
        started.stdin.close()


def test_models_are_pushed_to_s3_and_pulled_elsewhere(server: subprocess.Popen[str], tmp_path: Path) -> None:
    asked, said = server.stdin, server.stdout
    assert asked is not None and said is not None

    def dvc(root: Path, *arguments: str) -> None:
        print(json.dumps([str(root), *arguments]), file=asked, flush=True)
        assert said.readline() == "0\n", arguments

    endpoint = said.readline().strip()
    assert endpoint.startswith("http://127.0.0.1:")
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    (here / ".dvc").mkdir(parents=True)
    (here / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (here / "dvc.yaml").write_text(PIPELINE)
    dvc(here, "remote", "add", "--default", "store", f"s3://{BUCKET}/project")
    dvc(here, "remote", "modify", "store", "endpointurl", endpoint)
    dvc(here, "repro")
    dvc(here, "push")
    for name in ("dvc.yaml", "dvc.lock", ".dvc/config"):  # what git has
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / name, elsewhere / name)
    dvc(elsewhere, "pull", "models")
    assert (elsewhere / "models/weights").read_text() == "weights\n"
    dvc(elsewhere, "repro")
    assert (here / "ran").exists() and not (elsewhere / "ran").exists()  # it was up to date
