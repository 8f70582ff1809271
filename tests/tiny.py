"""The profile `tiny`: CALM's own classes with random weights of a few kilobytes, and pictures that are drawn.

The parts are saved as model folders, which params name by their paths: everything runs as with parts of a hub.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from ruamel.yaml import YAML
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from calm.data.store.images import encode
from calm.data.store.shards import ShardWriter
from calm.data.store.tables import INSTRUCTION, ITEM, LIST
from calm.instructions import CAPTION_PROMPT, COMMENT_PROMPT, SCORE_PROMPT, format_score, messages
from calm.io import write_table
from calm.layout import Layout
from calm.model.configuration import EfficientNetLiteConfig
from calm.model.efficientnet_lite import EfficientNetLiteModel
from calm.model.parts import CHATML
from calm.model.processing import CalmImageProcessor, Preprocessing
from calm.params import Params, parse_params
from calm.writing.stage import generate_texts

REPOSITORY = Path(__file__).parents[1]
SIDE = 64
PREPROCESSING = Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3)
DATASET = "drawn"
PICTURES = 8
TEST = ("p6", "p7")
CONTENT = ["low_deviation", "middle_mean", "high_mean", "summary", "summary_deviation", "words"]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
RUN: dict[str, Any] = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "checkpoint_every": 2}


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    symbols = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tiny = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tiny.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tiny.decoder = decoders.ByteLevel()
    tiny.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    end, _, eos = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tiny,
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        bos_token=end,
        eos_token=eos,
        unk_token=end,
        pad_token=eos,
        chat_template=CHATML,
    )


def vision() -> EfficientNetLiteModel:
    """An eighth of the channels, weights that neither vanish nor explode."""
    torch.manual_seed(1)
    model = EfficientNetLiteModel(EfficientNetLiteConfig(width_divisor=8, num_labels=10, image_size=SIDE))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model.eval()


def language(vocabulary: int) -> LlamaForCausalLM:
    """Two layers of 32."""
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def text_encoder(vocabulary: int) -> BertModel:
    """One layer of 16."""
    torch.manual_seed(3)
    return BertModel(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            initializer_range=1.0,
        )
    ).eval()


@dataclass(frozen=True)
class Parts:
    """Folders of the three parts."""

    vision: str
    language: str
    text: str


def save_parts(folder: Path) -> Parts:
    """Write the parts as model folders."""
    words = tokenizer()
    parts = Parts(str(folder / "vision"), str(folder / "language"), str(folder / "text"))
    vision().save_pretrained(parts.vision)
    CalmImageProcessor.of(PREPROCESSING).save_pretrained(parts.vision)
    language(len(words)).save_pretrained(parts.language)
    text_encoder(len(words)).save_pretrained(parts.text)
    for part in (parts.language, parts.text):
        words.save_pretrained(part)
    return parts


def params(parts: Parts, **changes: Any) -> Params:
    """params.yaml with tiny parts and sizes; changes by dotted keys, dots written as double underscores."""
    raw = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    raw["parts"] = {"vision": parts.vision, "language": parts.language, "text": parts.text}
    raw["runtime"] = {"device": "cpu", "dtype": "float32", "keep_features": True}
    raw["data"]["datasets"] = {DATASET: {}}
    raw["data"]["roles"] = {role: [DATASET] for role in raw["data"]["roles"]}
    raw["attributes"]["texts"]["per_state"] = 2
    raw["mfam"] |= {
        "levels": {"low": [2], "middle": [10], "high": [15]},
        "grid": 2,
        "queries": 2,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "thematic": {"grid": 1, "content": CONTENT},
    }
    raw["pretrain"]["attributes"]["contrastive"] |= {"width": 8, "texts": 2}
    raw["pretrain"]["attributes"]["language"] |= {"weight": 0.2, "samples": 14}
    raw["pretrain"]["attributes"]["calibration"] = {"share": 0.2, "views": 2}
    raw["mfam"]["words"] = {"states": 2, "tokens": 40, "probability": 0.2, "further": 0.15}
    raw["finetune"]["tuning"] = {"kind": "lora", "layers": "all", "r": 2, "alpha": 4, "dropout": 0.0}
    for section, run in (("pretrain", "attributes"), ("pretrain", "alignment"), ("finetune", "comments")):
        raw[section][run] |= RUN
    raw["pretrain"]["attributes"]["batch_size"] = 8  # so that every level has its views in every step
    raw["finetune"]["scores"] |= RUN
    raw["finetune"]["scores"]["visual"] |= {**RUN, "steps": 0}
    for key, value in changes.items():
        *path, last = key.split("__")
        section = raw
        for name in path:
            section = section[name]
        section[last] = copy.deepcopy(value)
    return parse_params(raw, "tiny")


def picture(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A colourful picture of smooth patches, unlike that of any other number."""
    rng = np.random.default_rng(number)
    patches = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return patches.resize(size, Image.Resampling.BICUBIC)


def pictures(count: int) -> list[Image.Image]:
    """The first so many pictures."""
    return [picture(number) for number in range(count)]


def build_data(root: Path, settings: Params) -> Layout:
    """Everything that training reads: shards, lists, guidance texts, instructions."""
    layout = Layout(root)
    folder = layout.prepared(DATASET)
    folder.mkdir(parents=True)
    writer = ShardWriter(folder)
    names = [f"p{number}" for number in range(PICTURES)]
    for number, name in enumerate(names):
        writer.add(name, encode(picture(number), 95))
    writer.close()
    listed = [{"dataset": DATASET, "item_id": name, "split": "test" if name in TEST else "train"} for name in names]
    write_table(layout.lists / "unlabelled.parquet", pd.DataFrame(listed), LIST)
    write_items(layout, names)
    generate_texts(settings, layout)
    write_instructions(layout, "generic", listed, CAPTION_PROMPT, lambda number: f"It may show {number}.")
    write_instructions(layout, "comments", listed, COMMENT_PROMPT, lambda number: f"Comment {number}.")
    write_instructions(layout, "scores", listed, SCORE_PROMPT, lambda number: format_score(1.5 + number), scored=True)
    return layout


def write_items(layout: Layout, names: list[str]) -> None:
    """Each picture as a photograph of its own group; what else is known of photographs does not matter here."""
    empty = {pa.string(): "-", pa.int32(): 0}
    frame = pd.DataFrame(
        {field.name: pd.Series([None if field.nullable else empty[field.type]] * len(names)) for field in ITEM}
    )
    frame = frame.assign(dataset=DATASET, item_id=names, group=names)
    write_table(layout.prepared(DATASET) / "items.parquet", frame, ITEM)


def write_instructions(
    layout: Layout, use: str, listed: list[dict[str, str]], prompt: str, answer: Any, *, scored: bool = False
) -> None:
    """One row for each picture."""
    rows = [
        item
        | {
            "task": use,
            "item_ids": [item["item_id"]],
            "messages": messages(prompt),
            "answer": answer(number),
            "score": 1.5 + number if scored else None,
            "level": None,
            "spoilt": None,
            "told": None,
            "origin": "drawn",
        }
        for number, item in enumerate(listed)
    ]
    frame = pd.DataFrame(rows).drop(columns="item_id")
    write_table(layout.instructions / f"{use}.parquet", frame[INSTRUCTION.names], INSTRUCTION)
