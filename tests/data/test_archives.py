"""A photograph is found by path, name or stem wherever it lies, and read the same from every container."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm.data import ArchiveError, SourceError
from calm.data.obtain.archives import ImageIndex, ImageRef, files_below, glob_regex, matching
from calm.data.store.images import encode
from tests.data.conftest import picture

PHOTOGRAPHS = {f"{number}": encode(picture(number, (80, 70)), 90) for number in (953619, 777, 12, 5)}


def lay_out(root: Path, layout: str, photographs: dict[str, bytes] = PHOTOGRAPHS) -> Path:
    """Write photographs, and things that are none, in one of the known layouts."""
    root.mkdir(parents=True, exist_ok=True)
    if layout == "loose":
        for stem, data in photographs.items():
            (root / "images" / stem[:1]).mkdir(parents=True, exist_ok=True)
            (root / "images" / stem[:1] / f"{stem}.jpg").write_bytes(data)
    elif layout == "zip":
        with zipfile.ZipFile(root / "images.zip", "w") as packed:
            for stem, data in photographs.items():
                packed.writestr(f"images/{stem}.jpg", data)
            packed.writestr("__MACOSX/images/._12.jpg", b"a fork of a resource")
            packed.writestr("readme.txt", b"no photograph")
    elif layout == "tar":
        with tarfile.open(root / "images.tar", "w") as packed:
            for stem, data in photographs.items():
                info = tarfile.TarInfo(f"./images/{stem}.jpg")
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("images/link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            packed.addfile(link)
    else:
        names = list(photographs) if layout == "parquet ids" else [f"{stem}.jpg" for stem in photographs]
        image = [
            {"bytes": data, "path": None if layout == "parquet ids" else name}
            for name, data in zip(names, photographs.values(), strict=True)
        ]
        table = pa.table({"image": image, "image_id": names, "score": [1.0] * len(names)})
        pq.write_table(table, root / "train-00000.parquet", row_group_size=3)
        pq.write_table(pa.table({"image_id": names}), root / "labels.parquet")
    return root


LAYOUTS = ("loose", "zip", "tar", "parquet", "parquet ids")


def named(index: ImageIndex, name: str) -> ImageRef:
    found = index.get(name)
    assert found is not None
    return found


def digests(index: ImageIndex) -> dict[str, str]:
    return {ref.stem: hashlib.sha256(ref.read()).hexdigest() for ref in index}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_photographs(tmp_path: Path, layout: str) -> None:
    index = ImageIndex(lay_out(tmp_path / "set", layout), id_column="image_id")
    assert len(index) == 4
    assert digests(index) == {stem: hashlib.sha256(data).hexdigest() for stem, data in PHOTOGRAPHS.items()}
    if layout != "parquet ids":
        assert named(index, "953619.jpg") == named(index, "953619")
    assert "12" in index
    assert index.get("13") is None
    assert index.missing(["13", "5", "link"]) == ["13", "link"]
    again = pickle.loads(pickle.dumps(named(index, "777")))
    assert again.read() == PHOTOGRAPHS["777"]


@pytest.mark.parametrize("layout", ["zip", "tar", "parquet"])
def test_containers_are_read_by_many_threads_at_once(tmp_path: Path, layout: str) -> None:
    many = {f"p{number}": bytes([number % 251]) * (1000 + number) for number in range(300)}
    index = ImageIndex(lay_out(tmp_path / "set", layout, many))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda stem: named(index, stem).read(), many))
    assert found == list(many.values())


def test_paths_with_folders_are_names_too(tmp_path: Path) -> None:
    index = ImageIndex(lay_out(tmp_path / "set", "loose"))
    assert named(index, "images/1/12.jpg").file == "images/1/12.jpg"


def test_of_an_archive_and_what_was_unpacked_from_it_the_loose_one_is_taken(tmp_path: Path) -> None:
    lay_out(tmp_path, "zip")
    lay_out(tmp_path, "loose", {"12": PHOTOGRAPHS["12"]})
    index = ImageIndex(tmp_path)
    assert named(index, "12").member is None
    assert named(index, "5").file == "images.zip"


def test_one_name_at_two_places_is_an_error_when_it_is_asked_for(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "12.jpg").write_bytes(b"x")
    index = ImageIndex(tmp_path)
    with pytest.raises(
        SourceError, match=r"two photographs are called '12': large/12\.jpg and small/12\.jpg; keep one"
    ):
        index.get("12")
    assert named(ImageIndex(tmp_path, ("small/*",)), "12").file == "small/12.jpg"


def test_archives_that_cannot_be_read_are_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "images.tar.gz").write_bytes(b"x")
    (tmp_path / "images.7z.001").write_bytes(b"x")
    advice = ImageIndex(tmp_path).advice()
    assert advice.startswith("; images.7z.001, images.tar.gz cannot be read at random: unpack it there")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet"])
@pytest.mark.parametrize("content", [b"nothing of the kind", b""])
def test_damaged_containers_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArchiveError, match=rf"{name}: not a whole.*download it again"):
        ImageIndex(tmp_path)


def test_a_container_cut_after_it_was_listed_is_named(tmp_path: Path) -> None:
    ref = named(ImageIndex(lay_out(tmp_path, "tar")), "5")
    whole = (tmp_path / "images.tar").read_bytes()
    assert isinstance(ref.member, tuple)
    (tmp_path / "images.tar").write_bytes(whole[: ref.member[0] + 10])
    with pytest.raises(ArchiveError, match="ends too early"):
        ref.read()


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "zip")
    data = bytearray((tmp_path / "images.zip").read_bytes())
    place = data.index(PHOTOGRAPHS["12"])
    data[place + 20] ^= 0xFF
    (tmp_path / "images.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"images\.zip: images/12\.jpg cannot be read .*CRC"):
        named(ImageIndex(tmp_path), "12").read()


def test_links_to_other_folders_are_followed_once(tmp_path: Path) -> None:
    lay_out(tmp_path / "elsewhere", "loose")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    assert len(ImageIndex(tmp_path / "set")) == 4


def test_files_are_listed_in_one_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a.txt", ".git/x", "b/.part", "B/1.txt", "__MACOSX/y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert files_below(tmp_path) == ["B/1.txt", "a.txt", "b/2.txt"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("AVA.txt", ["AVA.txt"]),
        ("**/ava.txt", ["AVA.txt", "a/AVA.txt"]),
        ("*.jpg", ["x.JPG"]),
        ("images/*", ["images/1.jpg"]),
        ("images/**", ["images/1.jpg", "images/s/2.jpg"]),
        ("images/**/*.jpg", ["images/1.jpg", "images/s/2.jpg"]),
        ("images/?.jpg", ["images/1.jpg"]),
        ("image?/1.jpg", ["images/1.jpg"]),
        ("a?AVA.txt", []),
        ("[x].JPG", []),
    ],
)
def test_globs_stay_within_folders_and_know_no_case(pattern: str, found: list[str]) -> None:
    files = ["AVA.txt", "a/AVA.txt", "images/1.jpg", "images/s/2.jpg", "x.JPG"]
    assert matching(files, [pattern]) == found
    assert glob_regex(pattern).fullmatch("nowhere/else") is None
