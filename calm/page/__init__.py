"""The page itself: what it shows, what happens on it, and the server behind it.

Photographs that are dropped are read and removed again; the browser gets pictures inside the page. So the server hands
out no file but gradio's own, wherever it lies, and a policy of the page keeps the browser from asking anybody else.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from calm.assistant.inputs import opened
from calm.attributes import LEVELS
from calm.data.store.images import SUFFIXES, ImageError
from calm.report.plots import overlay, photograph

if TYPE_CHECKING:
    from calm.assistant import Calm, Score, Suggestion

MOST = 200  # photographs of one visit
BATCH = 8  # photographs after which the page shows what there is
MOST_BYTES = 128 * 2**20  # of one file
MOST_AT_ONCE = 4 * 2**30  # bytes of one drop
WAITING = 64  # events, after which further ones are refused
SITTINGS = 32  # visits that are kept, the latest
LOOPBACK = ("127.0.0.1", "localhost")
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"
# An answer is given when a field is left or its arrows are used; the page is not drawn anew for it.
ON_LOAD = """element.addEventListener('change', (event) => {
  const card = event.target.closest('[data-row]');
  if (card) trigger('input', {row: card.dataset.row, score: event.target.value});
});"""
FONTS = ["system-ui", "sans-serif"]
_CARDS = Environment(loader=PackageLoader("calm.page", "."), autoescape=True, undefined=StrictUndefined)


def uploads(payload: Any) -> list[tuple[str, Path]]:
    """(name, where it lies) of what was dropped; gradio has checked that each is an upload of this page."""
    return [(Path(file.orig_name or file.path).name, Path(file.path)) for file in payload.root] if payload else []


class Guard:
    """Refuses what the page never asks for, and tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = POLICY
            await send(message)

        answer = self.app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            length = headers.get("content-length", "0" if scope["method"] in {"GET", "HEAD"} else "")
            if urlsplit(headers.get("origin", "")).netloc not in {"", headers.get("host")}:
                answer = PlainTextResponse("asked by another page", status_code=403)
            elif not length.isdecimal() or int(length) > MOST_AT_ONCE:
                answer = PlainTextResponse("too much at once", status_code=413)
            elif "=http" in scope["path"] or "=/http" in scope["path"]:  # gradio would fetch it
                answer = PlainTextResponse("not here", status_code=404)
        await answer(scope, receive, guarded)


@dataclass
class Page:
    """What happens on the page; cards of the folder are kept, whoever looks at them."""

    calm: Calm
    folder: Sequence[str]  # its photographs
    public: str | None
    made_by: Mapping[str, str]
    personal: Personal
    _known: dict[str, Card] = field(default_factory=dict)

    def show(self, sitting: Sitting, message: str = "", problems: Sequence[str] = (), busy: bool = False) -> str:
        """The page's cards as HTML."""
        return _CARDS.get_template("cards.html.j2").render(
            cards=[(row, sitting.cards[row]) for row in sitting.order()],
            given={row: f"{score:g}" for row, score in sitting.given.items()},
            own=sitting.own,
            csv=base64.b64encode(sitting.table(self.made_by).encode()).decode(),
            made_by=self.made_by,
            message=message,
            problems=problems,
            busy=busy,
        )

    def open_folder(self, sitting: Sitting) -> Iterator[str]:
        """The folder of the command line, as far as one page holds."""
        known = [path for path in self.folder[:MOST] if path in self._known]
        sitting.cards += [self._known[path] for path in known]
        rest = [(Path(path).name, Path(path)) for path in self.folder[:MOST] if path not in self._known]
        left = len(self.folder) - MOST
        note = f"{left} more are in the folder: calm score ranks folders of any size" if left > 0 else ""
        yield from self._judge(sitting, rest, [note] if note else [], self._known)

    def drop(self, files: list[tuple[str, Path]], sitting: Sitting) -> Iterator[tuple[None, str]]:
        """Photographs that were dropped; they are removed, whatever happens."""
        try:
            room = MOST - len(sitting.cards)
            problems = [f"{name}: a page holds {MOST} photographs" for name, _ in files[room:]]
            for shown in self._judge(sitting, files[:room], problems, {}):
                yield None, shown
        finally:
            for _, path in files:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another upload lies beside it
                    path.parent.rmdir()

    def _judge(
        self, sitting: Sitting, files: Sequence[tuple[str, Path]], problems: list[str], known: dict[str, Card]
    ) -> Iterator[str]:
        sitting.own = None  # learnt without these
        for start in range(0, len(files), BATCH):
            yield self.show(sitting, f"{start} of {len(files)} photographs looked at ...", problems, busy=True)
            images = []
            for name, path in files[start : start + BATCH]:
                try:
                    images.append((name, opened(path), path))
                except ImageError as error:
                    problems.append(str(error).replace(str(path), name))
            if images:
                cards = look(self.calm, [(name, image) for name, image, _ in images], self.public)
                sitting.cards += cards
                known |= {str(path): card for (*_, path), card in zip(images, cards, strict=True)}
        count = len(sitting.cards)
        yield self.show(sitting, f"{count} photograph{'' if count == 1 else 's'}" if count else "", problems)

    def rate(self, sitting: Sitting, event: gr.EventData) -> None:
        """A score that the visitor gave, or took back by an empty field."""
        row, text = int(event.row), str(event.score).strip()
        sitting.given.pop(row, None)
        if not text:
            return
        if not 1 <= (score := float(text)) <= 10:
            gr.Warning(f"{text} is not from 1 to 10, and does not count", duration=5)
        elif 0 <= row < len(sitting.cards):
            sitting.given[row] = score

    def own_order(self, sitting: Sitting) -> str:
        """The visitor's own order, or what is wanted for it."""
        try:
            sitting.personalise(self.personal)
        except ValueError as error:
            return self.show(sitting, str(error))
        return self.show(sitting, f"Learnt from {len(sitting.given)} scores of yours")

    def public_order(self, sitting: Sitting) -> str:
        """The order that the model gives without the visitor's scores."""
        sitting.own = None
        return self.show(sitting)

    def blocks(self) -> gr.Blocks:
        """The page for gradio."""
        with gr.Blocks(title="calm", analytics_enabled=False, delete_cache=(600, 600)) as page:
            sitting = gr.State(Sitting(), time_to_live=12 * 3600)
            gr.Markdown("# calm\nWhat a model says of photographs. They stay on the machine that runs this page.")
            drop: Any = gr.File(label="Photographs", file_count="multiple", file_types=[*SUFFIXES], height=150)
            drop.preprocess = uploads  # gradio's own makes an empty file for each of them and never removes it
            with gr.Row():
                public, own = gr.Button("By score"), gr.Button("In my own order", variant="primary")
            shown = gr.HTML(self.show(Sitting()), js_on_load=ON_LOAD)

            def on(event: Callable[..., Any], *arguments: Any, **more: Any) -> None:  # one at a time, in their order
                event(*arguments, show_progress="hidden", api_visibility="private", concurrency_id="calm", **more)

            on(drop.upload, self.drop, [drop, sitting], [drop, shown])
            on(public.click, self.public_order, sitting, shown)
            on(own.click, self.own_order, sitting, shown)
            on(shown.input, self.rate, sitting, trigger_mode="multiple")
            if self.folder:
                on(page.load, self.open_folder, sitting, shown)
        return page.queue(max_size=WAITING, default_concurrency_limit=1)


def serve(page: Page, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is told to stop; `ready` is called with its address.

    Raises:
        ValueError: the model cannot score, comment or suggest; the message says which one can.
    """
    look(
        page.calm, [("", Image.new("RGB", (64, 64)))], page.public
    )  # a model that cannot says so before the page opens
    guards = [Middleware(Guard)]
    if host in LOOPBACK:  # or a page from elsewhere could call itself so
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK]))
    with TemporaryDirectory(prefix="calm-page-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        blocks = page.blocks()
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MOST_BYTES,
            state_session_capacity=SITTINGS,
            app_kwargs={"middleware": guards},
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
            css_paths=Path(__file__).with_name("page.css"),
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        ready(address)
        try:
            signal.pause()
        except KeyboardInterrupt:
            blocks.close(verbose=False)


# Pooled features (N, F), generic scores (N,) and a person's scores by row to that person's score of every row (N,).
Personal = Callable[[NDArray[np.float32], NDArray[np.float64], Mapping[int, float]], Sequence[float]]


@dataclass(frozen=True)
class Card:
    """One photograph and what the model says of it; images are data URIs, so nothing is left on the server's disk."""

    name: str
    image: str
    overlays: tuple[tuple[str, str], ...]  # (level, data URI)
    score: Score
    comment: str
    suggestions: Sequence[Suggestion]
    pooled: NDArray[np.float32]  # (F,)


@dataclass
class Sitting:
    """One visit: cards in the order in which they came, and by the same rows the scores that the visitor gave."""

    cards: list[Card] = field(default_factory=list)
    given: dict[int, float] = field(default_factory=dict)
    own: Sequence[float] | None = None  # the visitor's score of every card, where they have asked for it

    def order(self) -> list[int]:
        """Rows, best first: by the visitor's own scores where there are such."""
        scores = [card.score.regression for card in self.cards] if self.own is None else self.own
        return sorted(range(len(self.cards)), key=lambda row: -scores[row])

    def personalise(self, personal: Personal) -> None:
        """Score every card as the visitor would.

        Raises:
            ValueError: `personal` cannot learn from what was given.
        """
        pooled = np.array([card.pooled for card in self.cards])
        self.own = personal(pooled, np.array([card.score.regression for card in self.cards]), self.given)

    def table(self, made_by: Mapping[str, str]) -> str:
        """A csv, a line for each card in the order of the page."""
        lines = [
            {
                "file": card.name,
                "score": card.score.regression,
                "percentile": card.score.percentile,
                "spread": card.score.spread,
                "comment": card.comment,
                "suggestions": " ".join(f"{one.text} ({one.probability:.0%})" for one in card.suggestions),
                "given": self.given.get(row),
                "own": None if self.own is None else self.own[row],
                **made_by,
            }
            for row, card in ((row, self.cards[row]) for row in self.order())
        ]
        return pd.DataFrame(lines).to_csv(index=False)


def look(calm: Calm, images: Sequence[tuple[str, Image.Image]], public: str | None) -> list[Card]:
    """What the model says of photographs, which are given with their names."""
    pictures = [image for _, image in images]
    maps = calm.attention(pictures)
    answers = zip(
        images,
        calm.score(pictures, public=public),
        calm.comment(pictures),
        calm.suggest(pictures),
        calm.pooled_features(pictures),
        strict=True,
    )
    return [
        Card(
            name,
            photograph(image),
            tuple((level, overlay(image, maps[level][row])) for level in LEVELS),
            score,
            comment,
            suggestions,
            pooled,
        )
        for row, ((name, image), score, comment, suggestions, pooled) in enumerate(answers)
    ]
