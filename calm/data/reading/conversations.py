"""Conversations about photographs in LLaVA's layout.

A json list of {"id", "image", "conversations": [{"from", "value"}, ...]}. Turns go in pairs, a person's and the
model's; the first holds "<image>" where the photograph is shown. Records without "image" are talk without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

import pandas as pd

from calm.data import SourceError
from calm.data.obtain.archives import located
from calm.data.reading.folder import FolderSource
from calm.data.store.text import CAPTION, QUESTION

IMAGE = "<image>"
_ASKED, _ANSWERED = ("human", "user"), ("gpt", "assistant")


@dataclass(frozen=True)
class Conversations:
    """What a file holds: one row of `turns` per question and answer, in the file's order.

    Attributes:
        turns: columns image (its path as published), record (counted from 0), turn (counted from 0), question, answer.
        records: number of them in the file.
        without_image: how many of them show no photograph; `turns` leaves them out.
    """

    turns: pd.DataFrame
    records: int
    without_image: int


def read_conversations(path: Path) -> Conversations:
    """A file in LLaVA's layout, read as a stream: memory is for the texts, not for the parsed json.

    Raises:
        SourceError: it is no such file; the message names the record.
    """
    images: list[str] = []
    records: list[int] = []
    turns: list[int] = []
    questions: list[str] = []
    answers: list[str] = []
    without = number = 0
    for number, (image, pairs) in enumerate(_stream(path), start=1):
        if image is None:
            without += 1
            continue
        for turn, (question, answer) in enumerate(pairs):
            images.append(image)
            records.append(number - 1)
            turns.append(turn)
            questions.append(question)
            answers.append(answer)
    columns = {"image": images, "record": records, "turn": turns, "question": questions, "answer": answers}
    return Conversations(pd.DataFrame(columns), number, without)


def _stream(path: Path) -> Iterator[tuple[str | None, list[tuple[str, str]]]]:
    """Of each record the photograph and its pairs of question and answer."""
    import ijson

    number = 0
    try:
        with path.open("rb") as file:
            for number, record in enumerate(ijson.items(file, "item"), start=1):  # noqa: B007 (for errors)
                image = record.get("image")
                yield (None, []) if image is None else (str(image), _pairs(record["conversations"]))
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not a whole json list after record {number}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(
            f"{path}, record {number}: {error if isinstance(error, ValueError) else repr(error)}"
        ) from None
    if number == 0:
        raise SourceError(f"{path}: no list of records")


def _pairs(conversation: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Questions and their answers; a question without an answer at the end is left out."""
    said = [(turn["from"], turn["value"]) for turn in conversation]
    pairs = list(zip(said[::2], said[1::2], strict=False))
    for (asker, _), (answerer, _) in pairs:
        if asker not in _ASKED or answerer not in _ANSWERED:
            raise ValueError(f"turns are of '{asker}' and '{answerer}', not of human and gpt in turn")
    return [(question.replace(IMAGE, "").strip(), answer.strip()) for (_, question), (_, answer) in pairs]


class ConversationSource(FolderSource):
    """Base of the sets in LLaVA's layout.

    Class attributes:
        json: name of the file, a glob.
        writer: who wrote the answers.
        captions: the answers are captions, and the questions only ask for one in many words.
    """

    json: ClassVar[str]
    writer: ClassVar[str]
    captions: ClassVar[bool]

    @cached_property
    def path(self) -> Path:
        """The json."""
        return self.find(f"**/{self.json}")

    @property
    def origin(self) -> str:
        """Origin of the answers, in the words of COMMENT: no person wrote them."""
        return f"synthetic_{self.writer}"

    @cached_property
    def conversations(self) -> Conversations:
        """What it holds."""
        return read_conversations(self.path)

    @cached_property
    def items(self) -> pd.Series:
        """Item id of every row of `turns`: the photograph's path as published, without suffix."""
        return self.conversations.turns["image"].map({path: item_id(path) for path in self.places})

    @cached_property
    def places(self) -> Mapping[str, str]:
        """Published path of each photograph -> its name in the index."""
        return located(self.images, pd.unique(self.conversations.turns["image"]).tolist())

    def labels(self) -> Iterable[Path]:
        return (self.path,)

    def wanted(self) -> Mapping[str, str]:
        """Every photograph that is spoken of, once."""
        return {item_id(path): place for path, place in self.places.items()}

    def comments(self, items: pd.DataFrame) -> pd.DataFrame:
        """Captions, or answers with their questions as aspect, "qa:QUESTION"; ids are RECORD.TURN.

        So each row is an answer to what it names, and rows of one record, in the order of their turns, are a
        conversation again.
        """
        turns = self.conversations.turns
        aspect = CAPTION if self.captions else QUESTION + turns["question"]
        numbers = turns["record"].astype(str) + "." + turns["turn"].astype(str)
        rows = pd.DataFrame({"item_id": self.items, "comment_id": numbers, "text": turns["answer"], "aspect": aspect})
        kept = (rows["text"] != "") & rows["item_id"].isin(items["item_id"])
        return rows[kept].assign(origin=self.origin).reset_index(drop=True)

    def counts(self) -> dict[str, int]:
        """As of other sets, and the records of the file."""
        found = self.conversations
        return {**super().counts(), "records": found.records, "without_image": found.without_image}


def item_id(path: str) -> str:
    """A photograph's path as published, without its suffix."""
    return PurePosixPath(path).with_suffix("").as_posix()
