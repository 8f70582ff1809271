"""A download is whole or absent, tried again where that may help, and every failure says what to do."""

from __future__ import annotations

import errno
import hashlib
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calm.data import DownloadError
from calm.data.obtain import ways as module
from calm.data.obtain.ways import download
from tests.data.server import Site, serving

BODY = np.random.default_rng(0).bytes(3 * 2**20)
SHA256 = hashlib.sha256(BODY).hexdigest()
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(BODY)) as one:
        yield one


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be waited; no test does."""
    kept: list[float] = []
    monkeypatch.setattr(time, "sleep", kept.append)
    return kept


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_alone_and_is_not_fetched_twice(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "new" / "photos.zip"
    assert download(site.url, target, sha256=SHA256, size=len(BODY)) == SHA256
    assert target.read_bytes() == BODY
    assert left(target.parent) == ["photos.zip"]
    assert download(site.url, target, sha256=SHA256) == SHA256
    assert len(site.requests) == 1


@pytest.mark.parametrize("tells_length", [True, False])
def test_without_a_hash_what_comes_is_taken_and_its_hash_returned(
    site: Site, tmp_path: Path, tells_length: bool
) -> None:
    site.tells_length = tells_length
    assert download(site.url, tmp_path / "photos.zip") == SHA256


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_server_is_asked_again_with_longer_and_longer_waits(
    site: Site, tmp_path: Path, waits: list[float], status: int
) -> None:
    site.faults = [status] * 4
    assert download(site.url, tmp_path / "photos.zip") == SHA256
    assert len(waits) == 4
    assert waits == sorted(waits) and waits[0] > 0


def test_a_server_that_stays_broken_ends_the_tries_and_leaves_nothing_empty(site: Site, tmp_path: Path) -> None:
    site.faults = [500] * 50
    with pytest.raises(DownloadError, match=r"photos\.zip: HTTPError: 500.*after 6 tries; run again later"):
        download(site.url, tmp_path / "photos.zip")
    assert len(site.requests) == 6
    assert left(tmp_path) == []


def test_nobody_at_the_door_is_told(tmp_path: Path) -> None:
    with serving(Site(BODY)) as gone:
        pass
    with pytest.raises(DownloadError, match=r"ConnectionError.*after 6 tries"):
        download(gone.url, tmp_path / "photos.zip")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "answered 404 Not Found$"),
        (410, "answered 410 Gone"),
        (401, "login or consent"),
        (403, "login or consent"),
    ],
)
def test_a_refusal_is_told_at_once(site: Site, tmp_path: Path, status: int, message: str) -> None:
    site.faults = [status]
    with pytest.raises(DownloadError, match=message):
        download(site.url, tmp_path / "photos.zip")
    assert len(site.requests) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("url", ["nowhere", "ftp://example.org/x.zip", "http:///x.zip"])
def test_what_is_no_url_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="not a URL that can be fetched"):
        download(url, tmp_path / "x.zip")


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html><head><title>Google Drive &ndash;\n Quota exceeded</title></head></html>",
        b"\n<!-- hello --><html><title>Google Drive &ndash; Quota exceeded</title></html>",
    ],
)
def test_a_web_page_instead_of_an_archive_is_recognised(tmp_path: Path, page: bytes) -> None:
    with serving(Site(page, content_type="text/html; charset=utf-8")) as site, pytest.raises(DownloadError) as error:
        download(site.url, tmp_path / "photos.zip")
    assert "brought a web page ('Google Drive – Quota exceeded') instead of photos.zip" in str(error.value)
    assert f"put the file at {tmp_path / 'photos.zip'}" in str(error.value)
    assert not (tmp_path / "photos.zip").exists()


def test_a_web_page_that_is_wanted_is_taken(tmp_path: Path) -> None:
    with serving(Site(b"<html></html>", content_type="text/html")) as site:
        download(site.url, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == b"<html></html>"


def test_another_hash_is_refused_and_nothing_kept(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"{SHA256}.*another version or damaged on the way; nothing was kept"):
        download(site.url, tmp_path / "photos.zip", sha256="0" * 64)
    assert left(tmp_path) == []


def test_a_file_of_another_hash_that_is_there_already_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"photos\.zip: sha256 .*, expected .*: remove it and run again"):
        download(site.url, tmp_path / "photos.zip", sha256=SHA256)
    assert (tmp_path / "photos.zip").read_bytes() == b"mine"
    assert site.requests == []


def test_a_disk_without_space_is_told_before_a_byte_is_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(2**30, 2**30 - 2**20, 2**20))
    with pytest.raises(DownloadError, match=r"needs 3 MiB more, and 64 MiB to spare; .* has 1 MiB free"):
        download(site.url, tmp_path / "photos.zip", size=len(BODY))
    assert left(tmp_path) == [] and site.requests == []


def test_a_cut_connection_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.faults = ["cut 100000", "cut 7"]
    assert download(site.url, tmp_path / "photos.zip") == SHA256
    assert left(tmp_path) == ["photos.zip"]


def test_a_disk_that_fills_up_meanwhile_is_told_and_nothing_is_left(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_refuse_page", full)
    with pytest.raises(DownloadError, match=r"photos\.zip: the disk is full: make room and run again"):
        download(site.url, tmp_path / "photos.zip")
    assert left(tmp_path) == []
