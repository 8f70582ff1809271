"""A download is whole or absent, resumed where it broke off, and every failure says what to do."""

from __future__ import annotations

import errno
import hashlib
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from calm.data.errors import DownloadError
from calm.data.obtain import download as module
from calm.data.obtain.download import download, retry_after
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
    monkeypatch.setattr(module.time, "sleep", kept.append)
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


def test_a_cut_connection_is_resumed_and_no_byte_fetched_twice(site: Site, tmp_path: Path) -> None:
    site.faults = [f"cut {15 * 2**16}", f"cut {8 * 2**16}"]
    download(site.url, tmp_path / "photos.zip", sha256=SHA256)
    assert (tmp_path / "photos.zip").read_bytes() == BODY
    assert [request.get("Range") for request in site.requests] == [None, f"bytes={15 * 2**16}-", f"bytes={23 * 2**16}-"]
    assert {request.get("If-Range") for request in site.requests[1:]} == {'"v1"'}
    assert site.served == len(BODY)


def test_cuts_are_forgiven_as_long_as_bytes_are_gained(site: Site, tmp_path: Path) -> None:
    site.faults = ["cut 100000"] * 20
    assert download(site.url, tmp_path / "photos.zip") == SHA256


def test_a_server_without_ranges_sends_all_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.faults = False, ["cut 1000000"]
    assert download(site.url, tmp_path / "photos.zip", sha256=SHA256) == SHA256
    assert site.served == len(BODY) + 1000000


def test_a_file_that_changed_between_two_tries_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    site.faults = ["cut 1000000", *[500] * 9]
    with pytest.raises(DownloadError, match="983,040 bytes are kept"):
        download(site.url, tmp_path / "photos.zip")
    site.body, site.etag, site.faults = BODY[::-1], '"v2"', []
    download(site.url, tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_anything_to_go_by_a_part_is_not_trusted(site: Site, tmp_path: Path, etag: str | None) -> None:
    site.etag, site.faults = etag, ["cut 1000000"]
    assert download(site.url, tmp_path / "photos.zip") == SHA256
    assert [request.get("Range") for request in site.requests] == [None, None]


def test_a_part_longer_than_the_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    part = tmp_path / ".photos.zip.1.x.part"
    part.write_bytes(BODY + b"more")
    assert download(site.url, tmp_path / "photos.zip", sha256=SHA256) == SHA256
    assert [request.get("Range") for request in site.requests] == [f"bytes={len(BODY) + 4}-", None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_with_longer_and_longer_waits(
    site: Site, tmp_path: Path, waits: list[float], status: int
) -> None:
    site.faults = [status] * 4
    assert download(site.url, tmp_path / "photos.zip") == SHA256
    assert len(waits) == 4
    assert all(2**number <= wait <= 2**number + 1 for number, wait in enumerate(waits))


def test_retry_after_is_obeyed(site: Site, tmp_path: Path, waits: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    site.faults = [(429, {"Retry-After": "7"}), (503, {"Retry-After": soon}), (503, {"Retry-After": "in a while"})]
    assert download(site.url, tmp_path / "photos.zip") == SHA256
    assert waits[0] == 7
    assert 30 < waits[1] <= 40
    assert waits[2] >= 4


def test_a_very_long_retry_after_is_told_instead_of_waited(site: Site, tmp_path: Path, waits: list[float]) -> None:
    site.faults = [(429, {"Retry-After": "86400"})]
    with pytest.raises(DownloadError, match="asks to come back in 1440 minutes; run again then"):
        download(site.url, tmp_path / "photos.zip")
    assert waits == []


@pytest.mark.parametrize("header", [None, "", "soon", "-3"])
def test_nonsense_in_retry_after_says_nothing(header: str | None) -> None:
    assert retry_after(header) is None


def test_a_server_that_stays_broken_ends_the_tries_and_leaves_nothing_empty(site: Site, tmp_path: Path) -> None:
    site.faults = [500] * 50
    with pytest.raises(DownloadError, match=r"photos\.zip: the server answered 500.*after 6 tries.*0 bytes are kept"):
        download(site.url, tmp_path / "photos.zip")
    assert len(site.requests) == 6
    assert left(tmp_path) == []


def test_nobody_at_the_door_is_told(tmp_path: Path) -> None:
    with serving(Site(BODY)) as gone:
        pass
    with pytest.raises(DownloadError, match=r"ConnectionError.*after 6 tries in a row"):
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
    with pytest.raises(DownloadError, match=rf"came with sha256 {SHA256} \(3145728 bytes\), expected 0000"):
        download(site.url, tmp_path / "photos.zip", sha256="0" * 64)
    assert left(tmp_path) == []


def test_another_size_is_refused_before_it_is_fetched(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the server has 3,145,728 bytes, expected 17: another version"):
        download(site.url, tmp_path / "photos.zip", size=17)
    assert left(tmp_path) == []


def test_a_file_of_another_hash_that_is_there_already_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"photos\.zip: sha256 .*, expected .*: remove it and run again"):
        download(site.url, tmp_path / "photos.zip", sha256=SHA256)
    assert (tmp_path / "photos.zip").read_bytes() == b"mine"
    assert site.requests == []


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_disk_without_space_is_told_before_a_byte_is_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(2**30, 2**30 - 2**20, 2**20))
    with pytest.raises(DownloadError, match=r"needs 3 MiB more, and 64 MiB to spare; .* has 1 MiB free"):
        download(site.url, tmp_path / "photos.zip", size=size)
    assert left(tmp_path) == []
    assert len(site.requests) == (0 if size else 1)


def test_a_disk_that_fills_up_meanwhile_keeps_the_part_for_later(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        monkeypatch.setattr(module, "require_space", lambda target, size: None)  # somebody else fills the disk
        with pytest.raises(DownloadError, match=r"photos\.zip: the disk is full after [\d,]+ bytes, which are kept"):
            download(site.url, place / "photos.zip", sha256=SHA256)
        kept = next(place.glob(".photos.zip.*.part")).stat().st_size
        assert kept > 900_000
        subprocess.run(["mount", "-o", "remount,size=8m", place], check=True)
        assert download(site.url, place / "photos.zip", sha256=SHA256) == SHA256
        assert site.requests[-1]["Range"] == f"bytes={kept}-"
        assert left(place) == ["photos.zip"]
    finally:
        subprocess.run(["umount", place], check=True)


def test_other_errors_of_the_disk_are_not_called_a_full_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "_write_validator", broken)
    with pytest.raises(OSError, match="Input/output error"):
        download(site.url, tmp_path / "photos.zip")


SLOW = dedent("""
    import sys, time
    from pathlib import Path
    from calm.data.obtain import download
    def receive(response, job, start, left):
        for block in response.iter_content(2**16):
            job.file.write(block)
            print(start, flush=True)
            time.sleep(1e9)
    download._receive = receive
    download.download(sys.argv[1], Path(sys.argv[2]))
""")


def test_a_killed_download_goes_on_in_another_process_and_a_living_one_is_left_alone(
    site: Site, tmp_path: Path
) -> None:
    target = tmp_path / "photos.zip"
    with subprocess.Popen([sys.executable, "-c", SLOW, site.url, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        assert download(site.url, target) == SHA256  # beside the living one
        assert "Range" not in site.requests[-1]
        assert len(list(tmp_path.glob(".photos.zip.*.part"))) == 1
        target.unlink()
        process.send_signal(signal.SIGKILL)
    assert download(site.url, target) == SHA256
    assert site.requests[-1]["Range"] == f"bytes={2**16}-"
    assert left(tmp_path) == ["photos.zip"]
