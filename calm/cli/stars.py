"""Stars for photo editors: `xmp:Rating` beside a photograph or, when asked, in it; over no rating that is there."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from calm.cli.printing import Row, tell

if TYPE_CHECKING:
    from lxml.etree import _ElementTree

PERCENTILES = (20, 50, 80, 95)  # of the public's photographs, from which a photograph has 2, 3, 4 and 5 stars
NAMES = {"rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "xmp": "http://ns.adobe.com/xap/1.0/"}
RDF, RATING = f"{{{NAMES['rdf']}}}", f"{{{NAMES['xmp']}}}Rating"
EMPTY = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{NAMES["rdf"]}"/></x:xmpmeta>'.encode()
EXIF_RATING = 0x4746


class Stars:
    """Rates photographs. How a folder's sidecars are called is decided when its first photograph is rated.

    Args:
        overwrite: ratings that are there too.
        inside: into the photographs, not beside them, where their format takes it; RAW files stay as they are.

    Raises:
        ValueError: exiv2, which writes them, is not installed.
    """

    def __init__(self, overwrite: bool, inside: bool = False) -> None:
        if inside and find_spec("exiv2") is None:
            raise ValueError("--inside writes by exiv2, which is not installed: pip install 'exiv2>=0.19,<0.20'")
        self.overwrite, self.inside = overwrite, inside
        self.failed = False
        self._names = cache(Names)

    def given(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows with `stars`, the rating that the photograph has now; None where none could be written.

        Raises:
            ValueError: the model does not know percentiles.
        """
        counts: Counter[str] = Counter()
        for row in rows:
            if row["percentile"] is None:
                raise ValueError("--xmp: this model does not say how many photographs of its public scored lower")
            stars = None
            try:
                stars, written = self._rate(Path(row["file"]), 1 + bisect_right(PERCENTILES, row["percentile"]))
                counts["written" if written else "kept"] += 1
            except (OSError, ValueError) as error:
                tell(str(error))
                self.failed = True
            yield {**row, "stars": stars}
        typer.echo(f"Stars: {counts['written']} written, {counts['kept']} ratings kept that were there", err=True)

    def _rate(self, photograph: Path, stars: int) -> tuple[int, bool]:
        """The rating that is there now, and whether it was written.

        Raises:
            ValueError, OSError: naming the file that cannot be read or written.
        """
        there, sidecar = self._names(photograph.parent).of(photograph)
        ratings = [rating for path in there for rating in _ratings(path.read_bytes(), path)]
        if not self.overwrite and (ratings := ratings or _inside(photograph)):
            return ratings[0], False
        if not (self.inside and _write_inside(photograph, stars)) or there:  # two ratings would contradict each other
            _write(sidecar, stars)
        return stars, True


class Names:
    """How sidecars of a folder are called: IMG_1.xmp (Adobe's way), or IMG_1.jpg.xmp (darktable's).

    The second where the folder has such alone, or where others share the stem; of those a RAW file has the first.
    """

    def __init__(self, folder: Path) -> None:
        from calm.data.store.images import SUFFIXES
        from calm.data.store.pixels import RAW_SUFFIXES as RAW

        files = [Path(path.name) for path in folder.iterdir()]
        self.raw = Counter(file.stem for file in files if file.suffix.lower() in RAW)
        self.all = Counter(file.stem for file in files if file.suffix.lower() in {*SUFFIXES, *RAW})
        sidecars = [Path(file.stem) for file in files if file.suffix.lower() == ".xmp"]
        self.whole = bool(sidecars) and all(name.suffix.lower() in {*SUFFIXES, *RAW} for name in sidecars)

    def of(self, photograph: Path) -> tuple[list[Path], Path]:
        """The sidecars that a photograph has, and the one to write."""
        from calm.data.store.pixels import RAW_SUFFIXES as RAW

        rivals = self.raw if photograph.suffix.lower() in RAW else self.all
        stems = [photograph.name] if rivals[photograph.stem] > 1 else [photograph.name, photograph.stem]
        names = [photograph.with_name(stem + suffix) for stem in stems for suffix in (".xmp", ".XMP")]
        there = [path for path in names if path.exists()]
        return there, there[0] if there else photograph.with_name(f"{stems[0 if self.whole else -1]}.xmp")


def _parsed(xmp: bytes, where: Path) -> _ElementTree:
    """XMP as a tree.

    Raises:
        ValueError: it is none; `where` it was found.
    """
    from lxml import etree

    try:
        root = etree.fromstring(xmp, etree.XMLParser(resolve_entities=False))
    except etree.XMLSyntaxError as error:
        raise ValueError(f"{where}: damaged ({error}): left as it is") from None
    if next(root.iter(f"{RDF}RDF"), None) is None:
        raise ValueError(f"{where}: no XMP: left as it is")
    return root.getroottree()


def _ratings(xmp: bytes, where: Path) -> list[int]:
    """Ratings from 1 to 5, and -1 for a rejected photograph; 0 is none.

    Raises:
        ValueError: as `_parsed`, or a rating is no number.
    """
    found = _parsed(xmp, where).xpath("//@xmp:Rating | //xmp:Rating/text()", namespaces=NAMES)
    try:
        return [round(float(rating)) for rating in found if float(rating)]
    except ValueError:
        raise ValueError(f"{where}: xmp:Rating is no number: left as it is") from None


def _inside(photograph: Path) -> list[int]:
    """Ratings in the photograph itself, as far as Pillow finds them; in a RAW file it often does not."""
    from PIL import Image

    found: list[int] = []
    with suppress(Exception), Image.open(photograph) as image:  # that its pixels can be read is known by now
        found += filter(None, [image.getexif().get(EXIF_RATING)])
        found += _ratings(image.info["xmp"].rstrip(b"\0"), photograph)
    return found


def _write(sidecar: Path, stars: int) -> None:
    """Set the rating; all else that a sidecar has stays."""
    from lxml import etree

    from calm.io import atomic_file

    tree = _parsed(sidecar.read_bytes() if sidecar.exists() else EMPTY, sidecar)
    attributes, elements = (tree.xpath(path, namespaces=NAMES) for path in ("//*[@xmp:Rating]", "//xmp:Rating"))
    for element in attributes:
        element.set(RATING, str(stars))
    for element in elements:
        element.text = str(stars)
    if not attributes and not elements:
        rdf = next(tree.iter(f"{RDF}RDF"))
        described = rdf.find(f"{RDF}Description")
        about = "" if described is None else described.get(f"{RDF}about", "")  # all tell of the same photograph
        etree.SubElement(rdf, f"{RDF}Description", {f"{RDF}about": about, RATING: str(stars)}, NAMES)
    with atomic_file(sidecar) as part:
        tree.write(part, encoding="utf-8", xml_declaration=True)


def _write_inside(photograph: Path, stars: int) -> bool:
    """Set the rating in a photograph, whose pixels and all else stay; False where its format takes none.

    Raises:
        ValueError: exiv2 finds the photograph's own data damaged.
    """
    import exiv2

    from calm.data.store.pixels import RAW_SUFFIXES
    from calm.io import atomic_file

    if photograph.suffix.lower() in RAW_SUFFIXES:
        return False
    try:
        kind = exiv2.ImageFactory.getType(str(photograph))
        if exiv2.ImageFactory.checkMode(kind, exiv2.MetadataId.Xmp) != exiv2.AccessMode.ReadWrite:
            return False
        with atomic_file(photograph.resolve()) as part:
            mode = photograph.stat().st_mode
            shutil.copyfile(photograph, part)
            image = exiv2.ImageFactory.open(str(part))
            image.readMetadata()
            image.xmpData()["Xmp.xmp.Rating"] = str(stars)
            if "Exif.Image.Rating" in image.exifData():
                image.exifData()["Exif.Image.Rating"] = stars
            image.writeMetadata()
    except exiv2.Exiv2Error as error:
        raise ValueError(f"{photograph}: {error.message}: left as it is") from None
    photograph.chmod(mode)
    return True
