"""The model hub, played by a server on this machine: a model goes there whole, and comes back at one revision."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from calm.assistant import Calm
from calm.sharing import HubError, export, fetch, is_name, push
from tests import tiny

NAME, TOKEN = "somebody/calm-tiny", "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub: large files by LFS, the others inside the commit."""

    files: ClassVar[dict[str, bytes]] = {}
    lfs: ClassVar[dict[str, bytes]] = {}
    fails: ClassVar[dict[str, int]] = {}  # status by a part of the path
    cut: ClassVar[bool] = False  # files come as half of what is announced
    protocol_version = "HTTP/1.1"

    @property
    def revision(self) -> str:
        return hashlib.sha1(json.dumps(sorted(self.files)).encode(), usedforsecurity=False).hexdigest()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._failed() or not self._allowed():
            return
        if self.path.endswith("/repos/create"):
            self._json({"url": f"{self._here}/{NAME}", "name": NAME, "id": NAME})
        elif "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if self._large(file["path"]) else "regular"}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = [
                {**one, "actions": {"upload": {"href": f"{self._here}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": wanted})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.lfs[value["oid"]]
            self._json({"commitUrl": f"{self._here}/{NAME}/commit/{self.revision}", "commitOid": self.revision})
        else:
            self._json({"errors": [], "warnings": []})  # of the card's heading

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.lfs[hashlib.sha256(body).hexdigest()] = body
        self._send(b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self._failed():
            return
        if f"/api/models/{NAME}/tree/" in self.path:
            self._json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in self.files.items()
                ]
            )
        elif self.path.startswith(f"/api/models/{NAME}"):
            listed = [{"rfilename": name} for name in self.files]
            self._json(
                {"id": NAME, "sha": self.revision, "siblings": listed, "private": True, "tags": [], "downloads": 0}
            )
        else:
            name = self.path.removeprefix(f"/{NAME}/resolve/").partition("/")[2]
            if name not in self.files:
                self._send(b"{}", status=404)
                return
            data = self.files[name]
            named = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.revision}
            self._send(data, named)

    def log_message(self, *arguments: Any) -> None:
        """Silence."""

    @property
    def _here(self) -> str:
        return f"http://{self.headers['Host']}"

    @staticmethod
    def _large(name: str) -> bool:
        return name.endswith(".safetensors")

    def _failed(self) -> bool:
        for part, status in self.fails.items():
            if part in self.path:
                self._send(b"{}", status=status)
                return True
        return False

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}" or "/validate-yaml" in self.path:
            return True
        self._send(b"{}", status=401)
        return False

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            if self.cut and self.path.endswith("model.safetensors"):
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            else:
                self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    """The hub's stand-in, empty, and a person who has a token for it."""
    import huggingface_hub.constants as constants
    from huggingface_hub import HfApi, hf_api

    handler = type("Fresh", (Hub,), {"files": {}, "lfs": {}, "fails": {}})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{running.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api, "api", HfApi(endpoint=endpoint))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the hub's newer way for large files, in Rust
    yield handler
    running.shutdown()


@pytest.fixture(scope="module")
def exported(trained_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "exported"
    export(trained_template.layout.finetuned("scores"), folder)
    return folder


def test_a_pushed_model_comes_back_with_its_revision_and_the_same_answers(server: type[Hub], exported: Path) -> None:
    revision = push(exported, NAME, private=True)
    assert set(server.files) == {path.name for path in exported.iterdir()}
    assert server.files["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    assert all(TOKEN.encode() not in data for data in server.files.values())
    again = Calm.from_pretrained(NAME, device="cpu")
    assert again.provenance["model"] == f"{NAME}@{revision[:12]}"
    assert again.score(tiny.pictures(2)) == Calm.from_pretrained(exported, device="cpu").score(tiny.pictures(2))
    assert not list(Path(fetch(f"{NAME}@{revision}")).glob("*.py"))  # code of the hub is never even there


@pytest.mark.parametrize(
    ("fails", "message"),
    [({"/commit/": 500}, "status 500: try again later"), ({"/preupload/": 403}, "set HF_TOKEN")],
)
def test_a_push_that_fails_leaves_nothing_and_says_what_to_do(
    server: type[Hub], exported: Path, fails: dict[str, int], message: str
) -> None:
    server.fails.update(fails)
    with pytest.raises(HubError, match=message) as caught:
        push(exported, NAME, private=True)
    assert server.files == {} and TOKEN not in str(caught.value)


def test_without_a_token_the_hub_refuses(server: type[Hub], exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match="the hub refused: set HF_TOKEN"):
        push(exported, NAME, private=True)


@pytest.mark.parametrize(("status", "message"), [(404, "not on the hub"), (401, "HF_TOKEN"), (502, "status 502")])
def test_what_the_hub_does_not_give_is_one_line(server: type[Hub], status: int, message: str) -> None:
    server.fails["/api/models/"] = status
    with pytest.raises(HubError, match=f"{NAME}: .*{message}"):
        Calm.from_pretrained(NAME, device="cpu")


def test_half_a_file_is_no_model(server: type[Hub], exported: Path) -> None:
    push(exported, NAME, private=True)
    server.cut = True
    with pytest.raises(HubError):
        Calm.from_pretrained(NAME, device="cpu")
    server.cut = False
    assert Calm.from_pretrained(NAME, device="cpu").score(tiny.pictures(1))


@pytest.mark.parametrize("name", ["no-owner", "a/b/c", "a/b@main", ""])
def test_a_push_wants_a_name_of_the_hub(exported: Path, name: str) -> None:
    with pytest.raises(HubError, match="write ORG/NAME"):
        push(exported, name, private=True)


def test_folders_here_come_before_names_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_name("models/finetune") and not is_name("models/finetune/scores")
    (tmp_path / "models/finetune").mkdir(parents=True)
    assert not is_name("models/finetune")
