"""`lmms-eval --model calm`: the class that commands and `calm evaluate` call, asked by lmms-eval's messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL.Image import Image

from calm.assistant import Calm
from calm.assistant.answers import in_words
from calm.assistant.personal import InContext
from calm.instructions import PERSONAL_PROMPT, SCORE_PROMPT, as_public

Messages = Sequence[dict[str, Any]]  # of a chat; the content of each is a list of texts and images
Readout = Literal["text", "expectation", "regression"]


class CalmModel(lmms):
    """A checkpoint of calm; answers to calm's own questions, others are an error that names those.

    Args:
        path: as `Calm.from_pretrained`; without it, the model that comes with calm.
        readout: how a score is read; "text" is the answer itself, the others are written with all their digits.
    """

    is_simple = False

    def __init__(
        self,
        path: str | None = None,
        readout: Readout = "text",
        device: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "float32",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,  # lmms-eval always gives it
    ) -> None:
        super().__init__()
        self._calm = Calm.from_pretrained(path, device=device or "auto", dtype=dtype)
        self._readout, self._batch = readout, int(batch_size or 16)
        self._person: tuple[list[Any], InContext] | None = None
        self._publics = {as_public(SCORE_PROMPT, name): name for name in self._calm.publics}
        self._answers = {
            question: said for question, said in in_words(self._calm).items() if SCORE_PROMPT not in question
        }

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """An answer for each request, in order; photographs of one task and question are looked at in batches."""
        found: list[str] = []
        for _, of_task in groupby(requests, key=lambda request: request.args[4]):
            rows = list(of_task)
            for start in range(0, len(rows), self._batch):
                found += self._said([self._messages(request) for request in rows[start : start + self._batch]])
        return found

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not answered: calm's tasks ask for texts."""
        raise NotImplementedError("calm answers in words: tasks with output_type generate_until")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not answered either."""
        raise NotImplementedError("calm answers in one round: tasks with output_type generate_until")

    def _messages(self, request: Instance) -> Messages:
        _, to_messages, _, document, task, split = request.args
        messages: Messages = to_messages(self.task_dict[task][split][document])
        return messages

    def _said(self, chats: Sequence[Messages]) -> list[str]:
        """Answers of a batch."""
        found: list[str] = []
        for question, group in groupby(chats, key=lambda messages: _text(messages[-1])):
            several = list(group)
            if question == PERSONAL_PROMPT:
                found += self._personal(several)
            elif question.startswith(SCORE_PROMPT):
                found += self._scores(question, [_image(*messages) for messages in several])
            elif question in self._answers:
                found += self._answers[question]([_image(*messages) for messages in several])
            else:
                known = " | ".join((SCORE_PROMPT, *self._answers, PERSONAL_PROMPT))
                raise ValueError(f"'{question}' is not one of calm's questions: {known}")
        return found

    def _scores(self, question: str, images: Sequence[Image]) -> list[str]:
        """As `calm evaluate`: of a public that the model does not know, its default one is asked."""
        scores = self._calm.score(images, self._batch, self._publics.get(question))
        return [score.raw if self._readout == "text" else repr(getattr(score, self._readout)) for score in scores]

    def _personal(self, chats: Iterable[Messages]) -> list[str]:
        """Scores as the person would give them whose rated photographs stand before; these are read once."""
        if self._readout == "text":
            raise ValueError("in context a score is read as a number: --model_args readout=regression (or expectation)")
        found: list[str] = []
        for _, group in groupby(chats, key=lambda messages: [_key(message) for message in messages[:-1]]):
            several = list(group)
            asked = self._calm.observe([_image(messages[-1]) for messages in several], self._batch)
            scores = self._context(several[0][:-1]).score(asked.tokens, self._batch)[self._readout == "regression"]
            found += [repr(float(score)) for score in scores]
        return found

    def _context(self, told: Messages) -> InContext:
        """A person's photographs and scores, ready for a further one; the last person's are kept."""
        key = [_key(message) for message in told]
        if self._person is None or self._person[0] != key:
            given = [float(_text(answer).removesuffix(".")) for answer in told[1::2]]
            support = self._calm.observe([_image(message) for message in told[::2]], self._batch)
            self._person = key, self._calm.in_context(support.tokens, given)
        return self._person[1]


def _text(message: dict[str, Any]) -> str:
    return " ".join(part["text"] for part in message["content"] if part["type"] == "text").strip()


def _image(*messages: dict[str, Any]) -> Image:
    """The one photograph of what is asked."""
    images: list[Image] = [part["url"] for one in messages for part in one["content"] if part["type"] == "image"]
    if len(images) != 1:
        raise ValueError(f"a question about {len(images)} photographs; calm judges one")
    return images[0]


def _key(message: dict[str, Any]) -> tuple[str, tuple[bytes, ...]]:
    """Equal for equal words and pixels."""
    return _text(message), tuple(part["url"].tobytes() for part in message["content"] if part["type"] == "image")
