"""`calm score --xmp`: stars that photo editors read, beside ratings that stay. Read back by exiv2, not by calm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import exiv2
import pytest
from PIL import Image, ImageCms

from calm.cli.stars import PERCENTILES, Names
from tests.cli.conftest import ByWidth, rows, run
from tests.test_structure import REPOSITORY

Save = Callable[..., Path]
RATING = "Xmp.xmp.Rating"
DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:darktable="http://darktable.sf.net/" darktable:history_end="3"{attribute}>
   <!-- by hand --><dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>Übersee</rdf:li></rdf:Bag></dc:subject>{element}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""


def sidecar(attribute: str = "", element: str = "") -> str:
    return DARKTABLE.format(
        attribute=f' xmp:Rating="{attribute}"' if attribute else "",
        element=f"<xmp:Rating>{element}</xmp:Rating>" if element else "",
    )


def read(path: Path) -> dict[str, str]:
    """What a file's XMP says, by exiv2."""
    image = exiv2.ImageFactory.open(str(path))
    image.readMetadata()
    return {datum.key(): datum.toString() for datum in image.xmpData()}


@pytest.mark.parametrize(("width", "stars"), [(199, 1), (200, 2), (499, 2), (500, 3), (800, 4), (949, 4), (950, 5)])
def test_stars_are_those_of_the_percentile(width: int, stars: int, holiday: Save) -> None:
    holiday("a.png", 1, width)
    assert [row["stars"] for row in rows("holiday", "--xmp")] == [stars]
    assert read(Path("holiday/a.xmp")) == {RATING: str(stars)}
    assert sorted(path.name for path in Path("holiday").iterdir()) == ["a.png", "a.xmp"]


def test_the_thresholds_that_pages_tell_are_those_of_the_code() -> None:
    for page in ("README.md", "docs/decisions.md"):
        text = " ".join((REPOSITORY / page).read_text(encoding="utf-8").split())
        assert "2, 3, 4 and 5 stars from percentile {}, {}, {} and {}".format(*PERCENTILES) in text, page


@pytest.mark.parametrize("unrated", [sidecar(), sidecar("0"), sidecar(element="0")])
def test_all_else_that_a_sidecar_has_stays(unrated: str, holiday: Save) -> None:
    path = holiday("a.jpg", 1, 400).with_name("a.jpg.xmp")
    path.write_text(unrated, encoding="utf-8")
    before = read(path)
    rows("holiday", "--xmp")
    assert read(path) == before | {RATING: "2"}
    assert "<!-- by hand -->" in path.read_text(encoding="utf-8") and before["Xmp.dc.subject"] == "sea, Übersee"
    assert sorted(file.name for file in Path("holiday").iterdir()) == ["a.jpg", "a.jpg.xmp"]


@pytest.mark.parametrize("there", [sidecar("4"), sidecar(element="4"), sidecar("-1")])
@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp", "a.XMP"])
def test_a_rating_that_is_there_is_overwritten_on_request_alone(there: str, name: str, holiday: Save) -> None:
    path = holiday("a.jpg", 1, 400).with_name(name)
    path.write_text(there, encoding="utf-8")
    result = run("holiday", "--xmp")
    assert "Stars: 0 written, 1 ratings kept that were there" in result.stderr
    assert path.read_text(encoding="utf-8") == there
    assert [row["stars"] for row in rows("holiday", "--xmp")] == [int(read(path)[RATING])]
    assert [row["stars"] for row in rows("holiday", "--xmp", "--overwrite-ratings")] == [2]
    assert read(path)[RATING] == "2" and len(list(Path("holiday").iterdir())) == 2


@pytest.mark.parametrize("how", ["xmp", "exif"])
def test_a_rating_in_the_photograph_is_one_that_is_there(how: str, holiday: Save) -> None:
    inside: dict[str, Any] = {"xmp": sidecar("3").encode()}
    if how == "exif":
        inside = {"exif": Image.Exif()}
        inside["exif"][0x4746] = 3
    holiday("a.jpg", 1, 400, **inside)
    assert [row["stars"] for row in rows("holiday", "--xmp")] == [3]
    assert [path.name for path in Path("holiday").iterdir()] == ["a.jpg"]


def test_sidecars_are_called_as_the_others_of_the_folder_and_by_the_whole_name_where_two_would_share_one(
    holiday: Save,
) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        holiday(name, 1, 400)
    rows("holiday", "--xmp")
    assert {path.name for path in Path("holiday").glob("*.xmp")} == {"a.jpg.xmp", "a.png.xmp", "b.xmp"}
    Path("holiday/b.xmp").unlink()
    Path("holiday/a.CR2").write_bytes(b"raw")
    assert Names(Path("holiday")).of(Path("holiday/a.CR2")) == ([], Path("holiday/a.CR2.xmp"))
    Path("holiday/c.xmp").touch()
    assert Names(Path("holiday")).of(Path("holiday/a.CR2")) == ([], Path("holiday/a.xmp"))  # Adobe's, in a pair too
    Path("holiday/c.xmp").unlink()
    Path("holiday/a.CR2").unlink()
    rows("holiday", "--xmp")
    assert {path.name for path in Path("holiday").glob("b.*xmp")} == {"b.jpg.xmp"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<x", "damaged"),
        ("<x/>", "no XMP: left as it is"),
        (sidecar("many"), "xmp:Rating is no number: left as it is"),
    ],
)
def test_a_sidecar_that_cannot_be_read_stays_and_is_told(content: str, reason: str, holiday: Save) -> None:
    path = holiday("a.jpg", 1, 400).with_suffix(".xmp")
    holiday("b.jpg", 2, 400)
    path.write_text(content)
    result = run("holiday", "--xmp", "--overwrite-ratings")
    assert result.exit_code == 1 and f"error: {path}: {reason}" in result.stderr
    assert path.read_text() == content and read(path.with_name("b.xmp"))[RATING] == "2"


def test_what_cannot_be_rated_is_one_message(holiday: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    holiday("a.jpg", 1, 400)
    for option in ("--overwrite-ratings", "--inside"):
        assert "have no effect without --xmp" in run("holiday", option).output
    score = ByWidth.score

    def without(*arguments: Any, **named: Any) -> list[Any]:
        return [vars(one).update(percentile=None) or one for one in score(*arguments, **named)]

    monkeypatch.setattr(ByWidth, "score", without)
    assert "--xmp: this model does not say" in run("holiday", "--xmp").output


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_inside_when_asked_and_all_else_in_the_photograph_stays(name: str, holiday: Save) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x4746] = "a camera", 0
    kept = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    path = holiday(name, 1, 400, **kept)
    path.chmod(0o640)
    with Image.open(path) as before:
        pixels, profile = before.tobytes(), before.info["icc_profile"]
    assert [row["stars"] for row in rows("holiday", "--xmp", "--inside")] == [2]
    with Image.open(path) as after:  # by Pillow, not by exiv2, which wrote it
        assert after.tobytes() == pixels and after.info["icc_profile"] == profile
        assert after.getexif()[0x010F] == "a camera" and after.getexif()[0x4746] == 2
        assert b'xmp:Rating="2"' in after.info["xmp"]
    assert [path.name for path in Path("holiday").iterdir()] == [name] and path.stat().st_mode & 0o777 == 0o640
    assert [row["stars"] for row in rows("holiday", "--xmp", "--min", "4")] == [2]  # a rating that is there


def test_what_takes_no_rating_inside_gets_a_sidecar_and_a_sidecar_that_is_there_says_the_same(holiday: Save) -> None:
    holiday("a.avif", 1, 400)
    rated = holiday("b.jpg", 2, 500).with_suffix(".xmp")
    rated.write_text(sidecar("5"), encoding="utf-8")
    rows("holiday", "--xmp", "--inside", "--overwrite-ratings")
    assert sorted(path.name for path in Path("holiday").iterdir()) == ["a.avif", "a.xmp", "b.jpg", "b.xmp"]
    assert read(Path("holiday/a.xmp"))[RATING] == "2"
    assert read(rated)[RATING] == read(Path("holiday/b.jpg"))[RATING] == "3"


def test_without_exiv2_inside_is_one_message_and_nothing_is_written(
    holiday: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    holiday("a.jpg", 1, 400)
    monkeypatch.setattr("calm.cli.stars.find_spec", lambda name: None)
    result = run("holiday", "--xmp", "--inside")
    assert result.exit_code == 1 and "pip install 'exiv2" in result.stderr
    assert [path.name for path in Path("holiday").iterdir()] == ["a.jpg"]
