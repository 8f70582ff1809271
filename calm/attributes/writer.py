"""Stage `generate_texts`: guidance texts for every attribute state, from a provider chosen in params."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from calm.attributes.grammar import GRAMMAR, all_guidance
from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.data.schema import GUIDANCE
from calm.io import sha256_text, write_table
from calm.layout import Layout
from calm.params import GrammarWriter, OpenAIWriter, Params, ParamsError
from calm.seeds import stream


@dataclass(frozen=True)
class TextRequest:
    """Texts wanted for one state.

    Attributes:
        phrases: what the catalogue says of the state, as a start for the writer.
        count: how many distinct texts.
        seed: for providers that draw.
    """

    level: str
    attribute: str
    state: str
    phrases: tuple[str, ...]
    remedies: tuple[str, ...]
    count: int
    seed: int

    @property
    def prompt(self) -> str:
        """The request in words, as a language model would be asked; its hash identifies what was asked."""
        described = "; ".join(phrase.replace("{very} ", "").replace("{too}", "too") for phrase in self.phrases)
        remedies = f" It can be put right like this: {'; '.join(self.remedies)}." if self.remedies else ""
        return (
            f"Write {self.count} short, distinct remarks on a photograph whose {self.attribute.replace('_', ' ')} "
            f"is '{self.state.replace('_', ' ')}' ({self.level}-level attribute: {described}).{remedies} Vary them: a "
            f"photographer's comment, a terse label, a beginner's words, some with a remedy. Name no other attribute."
        )


class TextProvider(Protocol):
    """Something that writes guidance texts."""

    @property
    def name(self) -> str:
        """The provider, as in params.yaml."""
        ...

    @property
    def model(self) -> str:
        """What wrote the texts: a model's name or a grammar's version."""
        ...

    def write(self, request: TextRequest) -> list[str]:
        """Return exactly `request.count` distinct texts.

        Raises:
            ValueError: that many cannot be had.
        """
        ...


@dataclass(frozen=True)
class GrammarProvider:
    """Texts from `calm.attributes.grammar`: offline, synthetic, the same for the same seed."""

    known: Taxonomy
    name: str = "grammar"
    model: str = GRAMMAR

    def write(self, request: TextRequest) -> list[str]:
        """A seeded sample, without repeats, of all texts that the grammar has for the state."""
        choices = all_guidance(request.attribute, request.state, self.known)
        if len(choices) < request.count:
            raise ValueError(
                f"the grammar has only {len(choices)} texts for '{request.state}' of '{request.attribute}': lower "
                f"attributes.texts.per_state ({request.count}), or add phrases to the attribute's file"
            )
        rng = stream(request.seed, "guidance", request.attribute, request.state)
        return [choices[index] for index in rng.permutation(len(choices))[: request.count]]


def provider_of(writer: GrammarWriter | OpenAIWriter, known: Taxonomy) -> TextProvider:
    """The provider that params.yaml names.

    Raises:
        ParamsError: it is not available in this version.
    """
    if isinstance(writer, OpenAIWriter):
        raise ParamsError(
            "attributes.texts.writer.provider: 'openai' is not available yet; set it to 'grammar' (and drop the other "
            "keys of attributes.texts.writer)"
        )
    return GrammarProvider(known)


def write_texts(provider: TextProvider, per_state: int, seed: int, known: Taxonomy) -> pd.DataFrame:
    """Rows of `GUIDANCE` for every state of the taxonomy, in its order.

    Raises:
        ValueError: the provider gave too few texts or repeated one.
    """
    rows = []
    for attribute in known.attributes:
        for state in attribute.all_states:
            request = TextRequest(
                attribute.level, attribute.name, state.name, state.phrases, state.remedies, per_state, seed
            )
            texts = provider.write(request)
            if len(texts) != per_state or len(set(texts)) != per_state:
                raise ValueError(
                    f"{provider.name} gave {len(set(texts))} distinct texts of {per_state} for {state.name}"
                )
            asked = sha256_text(request.prompt)
            place = (attribute.level, attribute.name, state.name)
            rows += [(*place, text, provider.name, provider.model, asked, sha256_text(text)) for text in texts]
    return pd.DataFrame(rows, columns=GUIDANCE.names)


def generate_texts(params: Params, layout: Layout) -> None:
    """Write `layout.texts`: `attributes.texts.per_state` distinct texts for each state of each attribute."""
    known = taxonomy()
    settings = params.attributes.texts
    frame = write_texts(provider_of(settings.writer, known), settings.per_state, params.seed, known)
    write_table(layout.texts, frame, GUIDANCE)
