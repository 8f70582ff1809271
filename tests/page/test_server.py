"""What the server behind the page refuses, asked without a browser; and what the page computes, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from calm.cli.personalise import read_ratings, rows_of
from calm.cli.serve import personal
from tests import tiny
from tests.page.conftest import CALM, REPOSITORY, Server, free_port

API = "gradio_api"


def ask(server: Server, data: list[Any], function: int) -> str:
    """What the page's own browser would send, and all that comes back."""
    body = {"data": data, "fn_index": function, "session_hash": "test", "event_data": None}
    joined = requests.post(f"{server.address}/{API}/queue/join", json=body, timeout=30)
    if not joined.ok:
        return joined.text
    got = requests.get(f"{server.address}/{API}/queue/data", params={"session_hash": "test"}, timeout=60)
    return got.text


@pytest.mark.parametrize("path", ["/etc/hostname", "p0.png", "../../../../etc/hostname", "http://127.0.0.1:1/x"])
def test_no_file_is_handed_out(server: Server, path: str) -> None:
    path = str(server.folder / path) if path == "p0.png" else path
    assert requests.get(f"{server.address}/{API}/file={path}", timeout=30).status_code in {403, 404}


def test_a_path_of_the_server_is_no_upload(server: Server) -> None:
    file = {"path": str(server.folder / "p0.png"), "orig_name": "p0.png", "meta": {"_type": "gradio.FileData"}}
    said = ask(server, [[file], None], 0)
    assert '"success":false' in said
    assert "calm-card" not in said
    assert (server.folder / "p0.png").is_file()


def test_a_name_that_leads_elsewhere_does_not(server: Server) -> None:
    before = set(server.temporary.rglob("*"))
    name = "../../../evil.jpg"
    sent = requests.post(f"{server.address}/{API}/upload", files={"files": (name, b"no photograph")}, timeout=30)
    (path,) = sent.json()
    (new,) = [p for p in server.temporary.rglob("*") if p.is_file() and p not in before]
    assert new == Path(path)
    assert new in server.uploads()
    file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    assert "evil.jpg: not a photograph" in ask(server, [[file], None], 0)
    assert server.uploads() == []


def test_too_large_an_upload_leaves_no_file(server: Server) -> None:
    from calm.page import MOST_BYTES

    files = {"files": ("large.jpg", bytes(MOST_BYTES + 1))}
    sent = requests.post(f"{server.address}/{API}/upload", files=files, timeout=60)
    assert sent.status_code == 413
    assert server.uploads() == []


def test_a_request_without_its_length_or_for_another_host_is_refused(server: Server) -> None:
    endless = requests.post(f"{server.address}/{API}/upload", data=iter([b"x"]), timeout=30)
    assert endless.status_code == 413
    assert requests.get(server.address, headers={"Host": "elsewhere"}, timeout=30).status_code == 400


def test_a_page_from_elsewhere_cannot_send_files(server: Server) -> None:
    files, origin = {"files": ("p.jpg", b"x")}, {"Origin": "http://elsewhere"}
    sent = requests.post(f"{server.address}/{API}/upload", files=files, headers=origin, timeout=30)
    assert sent.status_code == 403
    assert server.uploads() == []


def test_a_model_that_cannot_speak_is_told_before_the_page_opens(server: Server, trained_template: Any) -> None:
    model = str(trained_template.layout.pretrained("attributes").parent)
    command = [*CALM, "serve", "--port", str(free_port()), "--device", "cpu", "--model", model]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "is pre-trained only and cannot speak" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_answer_has_the_policy(server: Server) -> None:
    assert "default-src 'self'" in requests.get(server.address, timeout=30).headers["Content-Security-Policy"]


def test_a_port_that_is_taken_is_told(server: Server) -> None:
    port = server.address.rpartition(":")[2]
    done = subprocess.run(
        [*CALM, "serve", "--port", port, "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: 127.0.0.1:{port} cannot be used: name another port" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_gradio_one_line_says_what_to_install() -> None:
    code = "import sys; sys.prefix = '/nonexistent'; from calm.cli import app; app()"
    command = [sys.executable, "-P", "-c", code, "serve", "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the server comes with gradio, which is not installed: run `make page` in calm's checkout"
    ]


def test_own_scores_are_those_of_personalise(trained_template: Any, tmp_path: Path) -> None:
    from calm.assistant import Calm

    calm = Calm.from_pretrained(trained_template.layout.finetuned("scores"), device="cpu")
    for number in range(8):
        tiny.picture(number).save(tmp_path / f"p{number}.png")
    rows = "".join(f"p{number}.png,{1 + number}\n" for number in range(6))
    (tmp_path / "ratings.csv").write_text("file,score\n" + rows, encoding="utf-8")
    images = [tiny.picture(number) for number in range(8)]
    given, _ = read_ratings(tmp_path / "ratings.csv", 1, 10)
    expected = rows_of(calm, images, given, scale=(1.0, 10.0), how="ridge", readout="regression")
    generic = np.array([one.regression for one in calm.score(images)])
    found = personal(calm.pooled_features(images), generic, {number: 1.0 + number for number in range(6)})
    assert found == pytest.approx([row["score"] for row in expected], abs=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [({0: 5.0, 1: 6.0}, "score 3 photographs"), (dict.fromkeys(range(3), 5.0), "nothing to learn")],
)
def test_too_few_scores_and_equal_ones_are_told(given: dict[int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        personal(np.eye(4, dtype=np.float32), np.ones(4), given)
