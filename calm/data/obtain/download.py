"""Files over HTTP: resumed where they broke off, whole or absent, and hashed.

Each process writes to a temporary name of its own and holds a lock on it. The lock dies with the process, so a part
whose lock is free was left by a killed one, and the next process goes on with it. `ETag` or `Last-Modified` decide
with the server whether the part still belongs to the file (`If-Range`). Where there is neither, and no sha256 that
would tell in the end, the download begins anew.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from glob import escape
from html import unescape
from io import FileIO
from pathlib import Path

import requests
import tenacity

from calm.data.errors import DownloadError
from calm.data.progress import progress
from calm.io import PART, sha256_file

_BLOCK = 2**16  # bytes; what a cut connection costs at most
_TIMEOUT = (20, 60)  # seconds to connect, and without a byte
_FAILURES = 6  # in a row without a byte gained
_LONGEST_WAIT = 600.0  # seconds of a Retry-After that are waited; a longer one is told instead
_RESERVE = 64 * 2**20  # bytes that a download leaves free on the disk
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "calm-aesthetics"}


class _Retry(Exception):
    """The server, or the way to it, failed in a manner that may pass; `wait` is what Retry-After says, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


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
    target.parent.mkdir(parents=True, exist_ok=True)
    with _part(target) as (part, file):
        require_space(target, max(0, (size or 0) - part_size(file)))
        _transfer(_Transfer(url, target, size, sha256 is not None, part, file))
        found = sha256_file(part)
        if sha256 is not None and found != sha256:
            _discard(part)
            raise DownloadError(
                f"{url}: came with sha256 {found} ({part_size(file)} bytes), expected {sha256}: another version or "
                "damaged on the way; nothing was kept. Run again, and if it stays so, the publisher changed the file"
            )
        os.fsync(file.fileno())
        os.replace(part, target)
        _validator_file(part).unlink(missing_ok=True)
    return found


def require_space(target: Path, size: int) -> None:
    """Raises DownloadError if `size` more bytes do not fit beside `target`, with some to spare."""
    folder = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    if size and size + _RESERVE > free:
        raise DownloadError(
            f"{target}: needs {size / 2**20:,.0f} MiB more, and {_RESERVE / 2**20:.0f} MiB to spare; "
            f"{folder} has {free / 2**20:,.0f} MiB free"
        )


def part_size(file: FileIO) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


@contextmanager
def _part(target: Path) -> Iterator[tuple[Path, FileIO]]:
    """A locked temporary file: the longest that a killed process left, or a new one. Errors leave it for later."""
    part, file = next(_adopted(target), None) or _created(target)
    try:
        yield part, file
    finally:
        if part.exists() and not part_size(file):
            _discard(part)
        file.close()


def _adopted(target: Path) -> Iterator[tuple[Path, FileIO]]:
    """Parts of the target that nobody works on any more, locked; the longest first."""
    left = [path for path in target.parent.glob(f".{escape(target.name)}.*{PART}") if path.is_file()]
    for path in sorted(left, key=lambda path: (-path.stat().st_size, path.name)):
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:  # just finished
            continue
        if _locked(path, file):
            yield path, file
        else:
            file.close()


def _created(target: Path) -> tuple[Path, FileIO]:
    """A new part, locked."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.{os.getpid()}.", suffix=PART, dir=target.parent)
        path, file = Path(name), os.fdopen(handle, "r+b", buffering=0)
        if _locked(path, file):
            path.chmod(0o644)
            return path, file
        file.close()  # another process took it for one that was left


def _locked(path: Path, file: FileIO) -> bool:
    """Lock a part; False if somebody else has, or has given it its final name meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _validator_file(part: Path) -> Path:
    """Beside a part: the URL and the ETag or date of what it is the beginning of."""
    return part.with_name(f"{part.name}.etag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Transfer:
    """One download: from where, into which part, and what is known of it."""

    url: str
    target: Path
    size: int | None
    hashed: bool  # a sha256 will tell whether the part was resumed rightly, should the server give nothing to go by
    part: Path
    file: FileIO


@dataclass
class _Patience:
    """When to stop trying, and how long to wait: failures count from the last byte gained."""

    file: FileIO
    gained: int = -1
    failures: int = 0

    def stop(self, state: tenacity.RetryCallState) -> bool:
        size = part_size(self.file)
        self.failures = 1 if size > self.gained else self.failures + 1
        self.gained = max(size, self.gained)
        return self.failures >= _FAILURES

    def wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _Retry) else None
        return asked if asked is not None else float(tenacity.wait_exponential_jitter(1, 120)(state))


def _transfer(job: _Transfer) -> None:
    """Fill the part, trying again while that may help."""
    patience = _Patience(job.file)
    with requests.Session() as session:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Retry),
            stop=patience.stop,
            wait=patience.wait,
            sleep=lambda seconds: time.sleep(seconds),  # looked up late, so that tests need not wait
            reraise=True,
        )
        try:
            retrying(_attempt, session, job)
        except _Retry as error:
            raise DownloadError(
                f"{job.url}: {error}, after {_FAILURES} tries in a row; "
                f"{part_size(job.file):,} bytes are kept, run again to go on"
            ) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DownloadError(
                f"{job.target}: the disk is full after {part_size(job.file):,} bytes, which are kept; "
                "make room and run again to go on"
            ) from None


def _attempt(session: requests.Session, job: _Transfer) -> None:
    """One request: all of the file, or what the part still lacks."""
    have = part_size(job.file)
    headers = {**_HEADERS, **_range(job, have)}
    try:
        with session.get(job.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            _check_status(response, job)
            start = have if response.status_code == 206 else 0
            left = _length(response)
            _check_size(job, start, left)
            job.file.truncate(start)
            job.file.seek(start)
            _write_validator(job.part, job.url, response)
            _receive(response, job, start, left)
    except requests.exceptions.SSLError as error:
        raise DownloadError(f"{job.url}: the server's certificate is not accepted: {error}") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise DownloadError(f"{job.url}: not a URL that can be fetched") from None
    except requests.exceptions.RequestException as error:
        raise _Retry(f"{type(error).__name__}: {error}") from None
    if left is not None and part_size(job.file) != start + left:
        raise _Retry(f"broke off after {part_size(job.file):,} of {start + left:,} bytes")


def _receive(response: requests.Response, job: _Transfer, start: int, left: int | None) -> None:
    """Append the body to the part."""
    with progress(job.target.name, None if left is None else start + left, "bytes", start) as advance:
        for number, block in enumerate(response.iter_content(_BLOCK)):
            if number == 0 and start == 0:
                _refuse_page(block, response, job.url, job.target)
            view = memoryview(block)
            while view:  # an unbuffered write may take less than all
                view = view[job.file.write(view) :]
            advance(len(block))


def _range(job: _Transfer, have: int) -> dict[str, str]:
    """Headers that ask for the rest of the file, if there is a way to know that the rest belongs to the part."""
    validator = _read_validator(job.part, job.url) if have else None
    if validator:
        return {"Range": f"bytes={have}-", "If-Range": validator}
    return {"Range": f"bytes={have}-"} if have and job.hashed else {}


def _check_status(response: requests.Response, job: _Transfer) -> None:
    """Pass on 200 and a fitting 206; raise what says whether trying again may help."""
    status, have = response.status_code, part_size(job.file)
    answer = f"the server answered {status} {response.reason}"
    if status == 416 or (status == 206 and not _starts_at(response, have)):
        job.file.truncate(0)  # the part is no beginning of the file, or the server cannot count: begin anew
        raise _Retry(answer, wait=0)
    if status in _TRANSIENT:
        wait = retry_after(response.headers.get("Retry-After"))
        if wait is not None and wait > _LONGEST_WAIT:
            raise DownloadError(f"{job.url}: the server asks to come back in {wait / 60:.0f} minutes; run again then")
        raise _Retry(answer, wait)
    if status in (401, 403):
        raise DownloadError(f"{job.url}: {answer}: it may want a login or consent; see the dataset's home page")
    if status not in (200, 206):
        raise DownloadError(f"{job.url}: {answer}")


def _check_size(job: _Transfer, start: int, left: int | None) -> None:
    """Refuse a file of another size, or one that does not fit on the disk, before it is fetched."""
    if left is None:
        return
    if job.size is not None and start + left != job.size:
        raise DownloadError(
            f"{job.url}: the server has {start + left:,} bytes, expected {job.size:,}: another version of the file"
        )
    require_space(job.target, left)


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None if it says neither."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _starts_at(response: requests.Response, offset: int) -> bool:
    """Whether a 206 brings the bytes that were asked for."""
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _length(response: requests.Response) -> int | None:
    """Bytes that are to come; None if the server does not say, or says it of a compressed form."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and not _encoded(response) else None


def _encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _refuse_page(block: bytes, response: requests.Response, url: str, target: Path) -> None:
    """Raises DownloadError for a web page that stands where an archive or table should be."""
    if target.suffix.lower() in {".html", ".htm"}:
        return
    beginning = block[:2000].lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html")) or (
        b"<html" in beginning and "text/html" in response.headers.get("Content-Type", "")
    ):
        found = re.search(rb"<title[^>]*>(.*?)</title>", block, re.IGNORECASE | re.DOTALL)
        title = " ".join(unescape(found.group(1).decode("utf-8", "replace")).split())[:120] if found else "untitled"
        raise DownloadError(
            f"{url}: brought a web page ('{title}') instead of {target.name}: a login, a warning or a used-up quota. "
            f"Open it in a browser, and put the file at {target}"
        )


def _read_validator(part: Path, url: str) -> str | None:
    """What If-Range should say; None if the part is of another URL or the server gave nothing to go by."""
    try:
        of, validator = _validator_file(part).read_text(encoding="utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    return validator if of == url and validator else None


def _write_validator(part: Path, url: str, response: requests.Response) -> None:
    """Remember what the part is the beginning of: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    if _encoded(response):  # ranges would count bytes that are not those of the part
        validator = ""
    _validator_file(part).write_text(f"{url}\n{validator}", encoding="utf-8")
