"""SPICE by its jar, and the explicit step that fetches the parser it needs.

pycocoevalcap would fetch CoreNLP itself at the first use, unencrypted and unchecked. Here `calm fetch-spice FOLDER`
does it: over TLS, checked against the checksums that Maven Central publishes, and written down as sha256, which every
later use is held against. Without the jars SPICE is null with the reason, never 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calm.io import atomic_file, sha256_file

CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
HOME = "https://repo1.maven.org/maven2/edu/stanford/nlp/stanford-corenlp/3.6.0"
SUMS = "sha256sums.txt"
FOLDER_VARIABLE = "CALM_CORENLP_DIR"
NO_SPICE = (
    "SPICE needs " + " and ".join(CORENLP) + ", which are not part of any Python package; "
    f"`calm fetch-spice FOLDER` fetches them; name the folder in {FOLDER_VARIABLE}"
)


class SpiceError(RuntimeError):
    """SPICE's jars are missing, changed, or failed; the message says what to do."""


def fetch(folder: Path, home: str = HOME) -> dict[str, str]:
    """Bring CoreNLP's jars (some 400 MB) into a folder; what is there already is only checked.

    Returns:
        sha256 of each jar, as written into sha256sums.txt beside them.

    Raises:
        SpiceError: a jar is not what the publisher's checksum says.
        DownloadError: the server could not be reached.
    """
    from calm.data.obtain.download import download

    found = {}
    for name in CORENLP:
        with tempfile.TemporaryDirectory() as scratch:
            published = Path(scratch, "sha1")
            download(f"{home}/{name}.sha1", published)
            expected = published.read_text(encoding="ascii", errors="replace").split()[:1]
        found[name] = download(f"{home}/{name}", folder / name)
        with (folder / name).open("rb") as file:
            sha1 = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
        if [sha1] != expected:
            (folder / name).unlink()
            raise SpiceError(f"{home}/{name}: sha1 {sha1}, published is {' '.join(expected)}: removed, try again")
    with atomic_file(folder / SUMS) as part:
        part.write_text("".join(f"{value}  {name}\n" for name, value in found.items()), encoding="ascii")
    return found


def folder() -> Path | None:
    """The folder with CoreNLP's jars, checked; None if none is named.

    Raises:
        SpiceError: it lacks a jar, or holds another one than `fetch` wrote down.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None
    place = Path(named)
    for name in CORENLP:
        if not (place / name).is_file():
            raise SpiceError(f"{FOLDER_VARIABLE}={named} has no {name}: run `calm fetch-spice {named}`")
    if (place / SUMS).is_file():
        for line in (place / SUMS).read_text(encoding="ascii").splitlines():
            value, name = line.split()
            if sha256_file(place / name) != value:
                raise SpiceError(f"{place / name} is not the file whose sha256 stands in {SUMS}: fetch it again")
    return place


def spice_f(
    captions: Sequence[str], references: Sequence[Sequence[str]], java: Path, corenlp: Path
) -> NDArray[np.float64]:
    """SPICE's F of each tokenised caption against its references: (N,).

    Raises:
        SpiceError: the jar failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "in.json"), Path(scratch, "out.json")
        pairs = zip(captions, references, strict=True)
        rows = [{"image_id": i, "test": caption, "refs": list(texts)} for i, (caption, texts) in enumerate(pairs)]
        source.write_text(json.dumps(rows), encoding="utf-8")
        _run(java, corenlp, source, target)
        told = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(target.read_text(encoding="utf-8"))}
    return np.array([float(told[i]) for i in range(len(captions))])


def _run(java: Path, corenlp: Path, source: Path, target: Path) -> None:
    """Run SPICE's jar; without its cache, which does not work on Java 17 and later."""
    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None and spec.submodule_search_locations
    home = Path(spec.submodule_search_locations[0])
    classes = os.pathsep.join([str(home / "spice-1.0.jar"), str(home / "lib" / "*"), str(corenlp / "*")])
    command = [str(java), "-Xmx4G", "-cp", classes, "edu.anu.spice.SpiceScorer", str(source)]
    done = subprocess.run([*command, "-out", str(target), "-subset", "-silent"], capture_output=True, check=False)
    if done.returncode or not target.is_file():
        raise SpiceError(f"SPICE failed: {done.stderr.decode('utf-8', 'replace').strip()}")
