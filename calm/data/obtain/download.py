"""Files over HTTP, by pooch: whole or absent, hashed, and tried again where that may help.

For lists and jars. Datasets of many gigabytes are got by hand, or from a hub, whose client goes on where it broke off.
"""

from __future__ import annotations

import errno
import re
import shutil
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pooch
import requests

from calm.data.errors import DownloadError
from calm.io import sha256_file

_TIMEOUT = (20, 60)  # seconds to connect, and without a byte
_TRIES = 6
_RESERVE = 64 * 2**20  # bytes that a download leaves free on the disk
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "calm-aesthetics"}


class _Refused(Exception):
    """An answer after which trying again would not help."""


def download(url: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> str:
    """Fetch `url` into `target`, which then is whole; nothing to do if it is there and has this sha256.

    Args:
        sha256: what it must hash to; None accepts what comes, but not a web page for another kind of file.
        size: bytes, if known: checked against the disk before the server is asked.

    Returns:
        sha256 of the file.

    Raises:
        DownloadError: refused, gone, out of tries, a web page, another file than expected, or no space for it.
    """
    if target.is_file():
        found = sha256_file(target)
        if sha256 in (None, found):
            return found
        raise DownloadError(f"{target}: sha256 {found}, expected {sha256}: remove it and run again")
    require_space(target, size or 0)
    name = target.name
    hashed = None if sha256 is None else f"sha256:{sha256}"
    shelf = pooch.create(target.parent, "", registry={name: hashed}, urls={name: url}, retry_if_failed=_TRIES - 1)
    try:
        shelf.fetch(name, downloader=_receive)
    except _Refused as error:
        raise DownloadError(f"{url}: {error}") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise DownloadError(f"{url}: not a URL that can be fetched") from None
    except requests.exceptions.RequestException as error:
        raise DownloadError(f"{url}: {type(error).__name__}: {error}, after {_TRIES} tries; run again later") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DownloadError(f"{target}: the disk is full: make room and run again") from None
    except ValueError as error:  # pooch's word for another hash
        raise DownloadError(
            f"{url}: {error}: another version or damaged on the way; nothing was kept. If it stays so, the publisher "
            "changed the file"
        ) from None
    return sha256_file(target)


def require_space(target: Path, size: int) -> None:
    """Raises DownloadError if `size` more bytes do not fit beside `target`, with some to spare."""
    folder = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    if size and size + _RESERVE > free:
        raise DownloadError(
            f"{target}: needs {size / 2**20:,.0f} MiB more, and {_RESERVE / 2**20:.0f} MiB to spare; "
            f"{folder} has {free / 2**20:,.0f} MiB free"
        )


def _receive(url: str, output: Any, shelf: pooch.Pooch) -> None:
    """One try, as pooch asks for it: `output` is its temporary file, of which no web page becomes an archive."""
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT, headers=_HEADERS)
    try:
        get(url, output, shelf)
    except requests.exceptions.SSLError as error:
        raise _Refused(f"the server's certificate is not accepted: {error}") from None
    except requests.exceptions.HTTPError as error:
        answer = error.response
        if answer is None or answer.status_code in _TRANSIENT:
            raise
        login = ": it may want a login or consent; see the dataset's home page"
        told = f"the server answered {answer.status_code} {answer.reason}"
        raise _Refused(told + (login if answer.status_code in (401, 403) else "")) from None
    (name,) = shelf.registry
    if Path(name).suffix.lower() not in {".html", ".htm"}:
        _refuse_page(Path(output), shelf.path / name)


def _refuse_page(file: Path, target: Path) -> None:
    """Raises _Refused for a web page that stands where an archive or table should be."""
    with file.open("rb") as content:
        block = content.read(2**16)
    if not re.match(rb"\s*(<!--.*?-->\s*)?<(!doctype html|html)", block[:2000], re.IGNORECASE | re.DOTALL):
        return
    found = re.search(rb"<title[^>]*>(.*?)</title>", block, re.IGNORECASE | re.DOTALL)
    title = " ".join(unescape(found[1].decode("utf-8", "replace")).split())[:120] if found else "untitled"
    raise _Refused(
        f"brought a web page ('{title}') instead of {target.name}: a login, a warning or a used-up quota. "
        f"Open it in a browser, and put the file at {target}"
    )
