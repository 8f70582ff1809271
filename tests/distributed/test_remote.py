"""What one machine has computed another pulls from an S3 bucket (docs/cluster.md)."""

from __future__ import annotations

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


# Says where it listens, and ends with its standard input.
SERVER = f"""
import sys
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
address = f"http://{{host}}:{{port}}"
boto3.client("s3", endpoint_url=address).create_bucket(Bucket={BUCKET!r})
print(address, flush=True)
sys.stdin.read()
server.stop()
"""


def with_remote() -> dict[str, str]:
    """This process's environment, with what speaks S3."""
    return {**os.environ, **KEYS, "PYTHONPATH": str(REMOTE), "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Address of a local server that speaks S3, with an empty bucket."""
    if not (installed("dvc_s3", REMOTE) and installed("moto", REMOTE)):
        pytest.skip(f"dvc-s3 or moto {ABSENT}")
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, env=with_remote(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        yield address
        server.stdin.close()


def dvc(root: Path, *arguments: str) -> str:
    environment = {**with_remote(), "XDG_CACHE_HOME": str(root / ".home")}
    command = [str(Path(sys.executable).with_name("dvc")), *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_models_are_pushed_to_s3_and_pulled_elsewhere(endpoint: str, tmp_path: Path) -> None:
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
    assert "up to date" in dvc(elsewhere, "repro")
    assert not (elsewhere / "ran").exists()
