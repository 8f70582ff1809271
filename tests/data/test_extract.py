"""What strangers packed is unpacked whole and below the target, or refused with the member's name."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from calm.data import download
from calm.data import extract as module
from calm.data.errors import ArchiveError, DownloadError
from calm.data.extract import extract

FILES = {"a.txt": b"first", "in/b.txt": b"second" * 1000, "in/deep/c.bin": bytes(range(256))}
Usage = namedtuple("Usage", "total used free")


def make_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes] = FILES, odd: tarfile.TarInfo | None = None, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o4777
            packed.addfile(info, io.BytesIO(data))
        if odd is not None:
            packed.addfile(odd)
    return path


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives_are_unpacked_whole_beside_what_is_there(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"it.{kind}"
    mode = "w" if kind in {"zip", "tar"} else f"w:{kind.removeprefix('tar.')}"
    _ = make_zip(archive) if kind == "zip" else make_tar(archive, mode=mode)
    target = tmp_path / "out"
    (target / "in").mkdir(parents=True)
    (target / "in" / "mine.txt").write_bytes(b"mine")
    (target / "a.txt").write_bytes(b"old")
    assert extract(archive, target) == sorted(FILES)
    assert below(target) == {**FILES, "in/mine.txt": b"mine"}
    assert {path.stat().st_mode & 0o7777 for path in target.rglob("*.bin")} <= {0o644, 0o640, 0o600, 0o664}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../out.txt", "in/../../out.txt", "..\\out.txt", "C:\\out.txt", "C:out"]
)
def test_paths_that_leave_the_folder_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    for archive in (
        make_zip(tmp_path / "it.zip", {**FILES, name: b"x"}),
        make_tar(tmp_path / "it.tar", {**FILES, name: b"x"}),
    ):
        with pytest.raises(ArchiveError, match=r"would leave the folder: the archive is not to be trusted"):
            extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    odd = tarfile.TarInfo("in/odd")
    odd.type, odd.linkname = kind, "a.txt"
    with pytest.raises(ArchiveError, match=r"it\.tar: member 'in/odd' is a link or device"):
        extract(make_tar(tmp_path / "it.tar", odd=odd), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="member 'link' is a link or device"):
        extract(tmp_path / "it.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused_by_their_headers(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_BYTES", 2**20)
    files = {f"{number}.txt": bytes(2**20) for number in range(8)}
    archive = tmp_path / f"it.{kind}"
    _ = make_zip(archive, files) if kind == "zip" else make_tar(archive, files, mode="w:gz")
    with pytest.raises(ArchiveError, match=r"it\.\S+: [\d,]+ bytes would become more than [\d,]+: a bomb"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_longer_than_announced_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it.zip", {"liar.txt": bytes(10_000)})
    data = archive.read_bytes()
    assert data.count((10_000).to_bytes(4, "little")) == 2  # in the file's header and in the table of contents
    archive.write_bytes(data.replace((10_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ArchiveError, match=r"member 'liar\.txt'"):
        extract(archive, tmp_path / "out")
    assert below(tmp_path / "out") == {}


def test_damaged_archives_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "whole.zip", {"a.txt": b"text " * 9999}).read_bytes()
    broken = bytearray(whole)
    broken[60] ^= 0xFF
    (tmp_path / "broken.zip").write_bytes(broken)
    (tmp_path / "short.tar.gz").write_bytes(make_tar(tmp_path / "it.tar.gz", mode="w:gz").read_bytes()[:-60])
    for name in ("broken.zip", "short.tar.gz"):
        with pytest.raises(ArchiveError, match=rf"{name}.*download it again"):
            extract(tmp_path / name, tmp_path / "out")
    (tmp_path / "none.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match=r"none\.zip: neither a whole zip nor a whole tar"):
        extract(tmp_path / "none.zip", tmp_path / "out")
    assert below(tmp_path / "out") == {}


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it.zip", {"a.txt": b"secret"})
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"member 'a\.txt': damaged or encrypted .*password"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("names", [["a.txt", "./a.txt"], ["a.txt", "a.txt/b.txt"]])
def test_two_members_at_one_place_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ArchiveError, match=r"is there twice|a file and a folder at once"):
        extract(make_tar(tmp_path / "it.tar", dict.fromkeys(names, b"x")), tmp_path / "out")


def test_a_disk_without_space_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: Usage(2**30, 2**30, 0))
    with pytest.raises(DownloadError, match=r"0 MiB free"):
        extract(make_zip(tmp_path / "it.zip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        monkeypatch.setattr(module, "require_space", lambda target, size: None)  # somebody else fills the disk
        archive = make_zip(tmp_path / "it.zip", {f"{number}.bin": bytes(100_000) for number in range(9)})
        with pytest.raises(OSError, match=r"could not write .*it\.zip"):
            extract(archive, place / "out")
        assert below(place) == {}
    finally:
        subprocess.run(["umount", place], check=True)
