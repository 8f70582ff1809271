"""Files of a hub come at a pinned revision, are compared with its hashes, and every refusal says what to do."""

from __future__ import annotations

import hashlib
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from calm.data import DownloadError
from calm.data.obtain import ways
from calm.data.obtain.ways import HubFiles

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"data/train-0.parquet": b"pictures", "data/test-0.parquet": b"more", "README.md": b"hello"}
Usage = namedtuple("Usage", "total used free")
Lfs = namedtuple("Lfs", "sha256")
Sibling = namedtuple("Sibling", "rfilename size lfs")
Info = namedtuple("Info", "siblings")


class Hub:
    """A hub that has FILES, and writes what it is told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.sent = dict(FILES)
        self.error: Exception | None = None

    def info(self, _: Any, repo: str, **options: Any) -> Info:
        self.asked.append({"repo": repo, **options})
        if self.error is not None:
            raise self.error
        listed = FILES.items()
        return Info([Sibling(name, len(data), Lfs(hashlib.sha256(data).hexdigest())) for name, data in listed])

    def snapshot(self, repo: str, *, local_dir: Path, allow_patterns: list[str], **options: Any) -> None:
        self.asked.append({"repo": repo, "allow_patterns": allow_patterns, **options})
        for name in ("data/train-0.parquet", "data/test-0.parquet"):
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / name).write_bytes(self.sent[name])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    one = Hub()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, *a, **k: one.info(self, *a, **k))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", one.snapshot)
    return one


WAY = HubFiles("somebody/photos", REVISION, ("data/*.parquet",))


def test_the_wanted_files_come_at_the_pinned_revision(hub: Hub, tmp_path: Path) -> None:
    WAY.fetch(tmp_path)
    assert {asked["revision"] for asked in hub.asked} == {REVISION}
    assert hub.asked[-1]["allow_patterns"] == ["data/*.parquet"]
    assert (tmp_path / "data/train-0.parquet").read_bytes() == b"pictures"


@pytest.mark.parametrize(("sent", "message"), [(b"pic", "not the 8 bytes"), (b"PICTURES", "not the sha256")])
def test_a_file_that_is_not_the_hubs_is_refused(hub: Hub, tmp_path: Path, sent: bytes, message: str) -> None:
    hub.sent["data/train-0.parquet"] = sent
    with pytest.raises(DownloadError, match=rf"train-0\.parquet: {message}.* that https://.*remove it and run again"):
        WAY.fetch(tmp_path)


def test_patterns_that_match_nothing_are_told(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"datasets/somebody/photos: nothing there is called \*\.zip"):
        HubFiles("somebody/photos", REVISION, ("*.zip",)).fetch(tmp_path)


def test_a_full_disk_is_told_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways.shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    with pytest.raises(DownloadError, match="0 MiB free"):
        WAY.fetch(tmp_path)
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError, "accept its conditions there, then set HF_TOKEN"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one"),
        (errors.HfHubHTTPError, "what has come is kept, run again to go on"),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(hub: Hub, tmp_path: Path, error: Any, message: str) -> None:
    response = SimpleNamespace(headers={}, request=None)
    hub.error = error("no", response=response)
    with pytest.raises(DownloadError, match=rf"datasets/somebody/photos: .*{message}"):
        WAY.fetch(tmp_path)


def test_a_revision_that_can_move_is_no_pin() -> None:
    with pytest.raises(ValueError, match=r"should match pattern.*main"):
        HubFiles("somebody/photos", "main", ("*",))
