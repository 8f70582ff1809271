"""Checkpoints on the model hub: pushed as one commit, read back at one revision. Tokens come from the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calm.version import __version__

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")
_SNAPSHOT = re.compile(r".*models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]+)/?")


class HubError(ValueError):
    """The model hub refused, does not know a model, or cannot be reached; the message says what to do."""


def is_name(model: Path | str) -> bool:
    """Whether a model's name is one of the hub, ORG/NAME or ORG/NAME@REVISION, and no folder here."""
    return not Path(model).exists() and _NAME.fullmatch(str(model)) is not None


def fetch(name: str) -> Path:
    """The folder of the hub's model ORG/NAME, or of its revision ORG/NAME@REVISION; downloaded where it is not yet.

    Nothing of it is run: calm reads its tensors with its own code.

    Raises:
        HubError: there is no such model or revision, it is not open to this person, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    found = _NAME.fullmatch(name)
    assert found is not None, name
    with _told(name):
        folder = snapshot_download(found["repository"], revision=found["revision"], ignore_patterns="*.py")
    return Path(folder)


def revision_of(folder: Path) -> str | None:
    """ORG/NAME@REVISION of a folder that `fetch` gave; None of another."""
    found = _SNAPSHOT.fullmatch(folder.as_posix())
    return f"{found['owner']}/{found['name']}@{found['revision'][:12]}" if found else None


def push(folder: Path, name: str, *, private: bool) -> str:
    """Write every file of an exported checkpoint to the model ORG/NAME, in one commit; returns its revision.

    Raises:
        HubError: as `fetch`; nothing of the commit is visible then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if "@" in name or _NAME.fullmatch(name) is None:
        raise HubError(f"'{name}' is no name of a model on the hub: write ORG/NAME")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    with _told(name):
        api = HfApi(library_name="calm", library_version=__version__)
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.create_commit(name, operations, commit_message=f"calm {__version__}").oid)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line."""
    import httpx2 as httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise HubError(f"'{name}' is no name of a model on the hub: {error}") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError) as error:
        # Where the hub fails, downloads look for a copy here, and fail for want of one.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        raise HubError(
            f"{name}: {_why(cause.response.status_code if isinstance(cause, HfHubHTTPError) else None)}"
        ) from None
    except OSError as error:  # a file that came as half of one, a full disk
        raise HubError(f"{name}: {error}") from None


def _why(status: int | None) -> str:
    """What the hub's answer means for a person; None: there was none."""
    match status:
        case None:
            return "there is no folder of this name, and the hub cannot be reached"
        case 401 | 403:
            return "the hub refused: set HF_TOKEN to a token that may do this"
        case 404:
            return "not on the hub, or not open to you: check the name, or set HF_TOKEN"
        case _:
            return f"the hub answered with status {status}: try again later"
