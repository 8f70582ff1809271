"""Put a CALM together from params.yaml, and save and load what a stage has trained of it.

A stage's checkpoint holds what it trained (`trained.safetensors`, an adapter folder for LoRA) and the configuration
that names the parts it was trained on. The last stage's checkpoint is a whole model in transformers' own format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from calm.attributes.taxonomy import Taxonomy, taxonomy
from calm.io import sha256_file, sha256_text
from calm.model.configuration import CalmConfig
from calm.model.mfam import LevelTokens
from calm.model.modeling import CalmForConditionalGeneration
from calm.model.pretrained import (
    Language,
    Vision,
    imagenet_names,
    language_config,
    load_language,
    load_text_encoder,
    load_vision,
    placed,
    resolve_device,
    resolve_dtype,
    text_part,
    vision_part,
)
from calm.model.processing import CalmImageProcessor, CalmProcessor, Preprocessing, add_placeholders
from calm.model.settings import LoRATuning, Runtime
from calm.params import Params

if TYPE_CHECKING:
    from peft import PeftModel  # its import takes seconds: functions that need it import it

TRAINED = "trained.safetensors"
ADAPTER = "adapter"

_ADAPTER_CARD = """\
---
library_name: peft
---

# What LoRA has learnt of a CALM's language model

An adapter of {base} as it comes, apart from the model's other trained parts. Where a `model.safetensors` lies in the
folder above, this adapter is merged into it: applied to that model it would act twice, and calm warns of it.
"""

NOTHING = " nothing;"  # in the language model's words, where no attribute state is told
FILLER = "\n"


class CheckpointError(ValueError):
    """A checkpoint that is incomplete or belongs to another model."""


@dataclass
class Assembly:
    """A model with its processor and what its encoder expects of pixels."""

    model: CalmForConditionalGeneration
    processor: CalmProcessor
    preprocessing: Preprocessing

    def encode(self, pixels: torch.Tensor) -> LevelTokens:
        """What the encoder says of normalised pixels (B, 3, S, S), wherever they are."""
        return self.model.encode_images(pixels.to(self.model.device))


def calm_config(
    params: Params, attribute_states: Sequence[Sequence[str]] = (), text_config: PreTrainedConfig | None = None
) -> CalmConfig:
    """The configuration that params.yaml implies; no weights are read, so any profile can be planned anywhere."""
    mfam, contrastive = params.mfam, params.pretrain.attributes.contrastive
    vision = vision_part(params.parts.vision)
    return CalmConfig(
        # Copies: a composite configuration writes into those it is made of (attention's implementation, for one).
        vision_config=deepcopy(vision.config),
        text_config=deepcopy(text_config or language_config(params.parts.language)),
        image_size=vision.preprocessing.size,
        max_side=params.data.image.max_side,
        **mfam.model_dump(exclude={"thematic", "words"}),
        thematic_grid=mfam.thematic.grid,
        thematic_content=mfam.thematic.content,
        contrast_width=contrastive.width,
        contrast_temperature=contrastive.temperature,
        text_width=text_part(params.parts.text).width,
        told_states=mfam.words.states,
        told_probability=mfam.words.probability,
        told_further=mfam.words.further,
        told_length=mfam.words.tokens,
        score_mean=True,
        attribute_states=[list(state) for state in attribute_states],
        unpraised=[attribute.name for attribute in taxonomy().attributes if not attribute.praised],
        mirrored_rows=taxonomy().mirrored_rows(attribute_states),
    )


def assemble(params: Params, attribute_states: Sequence[Sequence[str]] = ()) -> Assembly:
    """Pretrained parts around a fresh MFAM, all frozen; the fresh weights are drawn from `params.seed`."""
    language = load_language(params.parts.language, resolve_dtype(params.runtime))
    config = calm_config(params, attribute_states, language.model.config)
    vision = load_vision(params.parts.vision, resolve_dtype(params.runtime))
    assembly = assemble_parts(config, vision, language, params.runtime, params.seed)
    model = assembly.model
    if "words" in config.thematic_content:
        classes, encoder = model.mfam.get_buffer("class_words"), load_text_encoder(params.parts.text)
        classes.copy_(encoder.embed([f"a photograph of {name}" for name in imagenet_names()[: len(classes)]]))
        config.provenance["text"] = encoder.provenance.as_dict()
    if config.told_tokens:
        ids = word_ids(assembly.processor.tokenizer, taxonomy(), config.attribute_states, config.told_length)
        model.mfam.get_buffer("words").copy_(embedded(ids, model.get_input_embeddings()))
    return assembly


def assemble_named(config: CalmConfig, runtime: Runtime, seed: int) -> Assembly:
    """As `assemble`, of the parts that a checkpoint's configuration names."""
    names, dtype = config.provenance, resolve_dtype(runtime)
    vision, language = load_vision(names["vision"]["name"], dtype), load_language(names["language"]["name"], dtype)
    return assemble_parts(config, vision, language, runtime, seed)


def word_ids(
    tokenizer: PreTrainedTokenizerBase, known: Taxonomy, table: Sequence[Sequence[str]], length: int
) -> list[list[int]]:
    """Token ids of the noun that names each state (" visible noise;"), then of nothing: `length` each.

    Shorter ones are filled from the front, so that a state's words stand together.

    Raises:
        ValueError: every noun of a state is longer; the message says which, and what length it needs.
    """
    filler = tokenizer(FILLER, add_special_tokens=False).input_ids[-1:]
    nothing = tokenizer(NOTHING, add_special_tokens=False).input_ids
    found = []
    for _, attribute, state in table:
        of_state = known.attribute(attribute).state(state)
        nouns = [tokenizer(f" {noun};", add_special_tokens=False).input_ids for noun in of_state.nouns]
        fitting = [ids for ids in nouns if len(ids) <= length]
        if not fitting:
            raise ValueError(
                f"mfam.words.tokens: {length} are too few for '{state}' of '{attribute}', "
                f"which takes {min(map(len, nouns))}"
            )
        found.append(fitting[0])
    return [filler * (length - len(ids)) + ids for ids in (*found, nothing[:length])]


def embedded(ids: Sequence[Sequence[int]], embedding: torch.nn.Module) -> torch.Tensor:
    """The language model's own words for attribute states, as rows of its embedding: (words, length, D) float32."""
    found: torch.Tensor = embedding(torch.tensor(ids, device=next(embedding.parameters()).device))
    return found.float()


def assemble_parts(config: CalmConfig, vision: Vision, language: Language, runtime: Runtime, seed: int) -> Assembly:
    """As `assemble`, for a configuration and parts that are at hand."""
    config.placeholder_token_ids = add_placeholders(language.tokenizer, config.text_config.vocab_size)
    config.digit_token_ids = [language.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)]
    parts = {"vision": vision.provenance.as_dict(), "language": language.provenance.as_dict()}
    config.provenance = config.provenance | parts
    config.dtype = resolve_dtype(runtime)
    torch.manual_seed(seed)
    model = CalmForConditionalGeneration(config, vision.model, language.model)
    model.generation_config.eos_token_id = language.tokenizer.eos_token_id
    model.generation_config.pad_token_id = language.tokenizer.pad_token_id
    processor = CalmProcessor(
        CalmImageProcessor.of(vision.preprocessing, config.max_side or None),
        language.tokenizer,
        chat_template=language.chat_template,
        queries=config.queries,
        thematic_tokens=config.thematic_tokens,
        told_tokens=config.told_tokens,
    )
    return Assembly(placed(model, runtime), processor, vision.preprocessing)


def add_lora(model: CalmForConditionalGeneration, tuning: LoRATuning, seed: int) -> PeftModel:
    """Low-rank adapters on linear layers of the language model, never on its head; the adapters alone are trainable."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=tuning.r,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules="all-linear" if tuning.layers == "all" else attention_layers(model.language_model),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model.language_model, config)


def attention_layers(language_model: torch.nn.Module) -> list[str]:
    """Names of the linear layers inside attention, as transformers' models call their modules.

    Raises:
        ValueError: the language model has no module whose name says that it is attention.
    """
    found = {
        name.rsplit(".", 1)[-1]
        for name, module in language_model.named_modules()
        if isinstance(module, torch.nn.Linear) and "attn" in name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
    }
    if not found:
        raise ValueError("finetune.tuning.layers: this language model has no attention layers by that name; use 'all'")
    return sorted(found)


def save_adapter(folder: Path, adapter: PeftModel) -> None:
    """Write adapters below `folder`, with what they are of; the same adapters are always the same bytes."""
    base: str = adapter.get_base_model().name_or_path
    for config in adapter.peft_config.values():
        config.target_modules = sorted(config.target_modules)  # peft writes a set as it comes: every process its order
        config.base_model_name_or_path = base
    adapter.save_pretrained(folder / ADAPTER, save_embedding_layers=False)  # or it asks the hub for the base model
    (folder / ADAPTER / "README.md").write_text(_ADAPTER_CARD.format(base=base), encoding="utf-8")  # peft's is a form


def save_trained(folder: Path, model: CalmForConditionalGeneration, names: Iterable[str]) -> None:
    """Write the configuration and the named tensors of the model's state dict."""
    state = model.state_dict()
    kept = {name: state[name].detach().cpu().contiguous() for name in sorted(names)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(kept, folder / TRAINED, metadata={"format": "pt"})
    model.config.to_json_file(folder / "config.json", use_diff=False)


def load_trained(folder: Path, model: CalmForConditionalGeneration) -> list[str]:
    """Load a stage's tensors into a model of the same parts, and return their names; raises `CheckpointError`."""
    state = read_trained(folder)
    if not model.config.told_tokens:  # the language model's own words: no stage trains them
        state.pop("mfam.words", None)
    own = model.state_dict()
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            shape = tuple(own[name].shape) if name in own else "no such tensor"
            raise CheckpointError(
                f"{folder / TRAINED}: '{name}' {tuple(tensor.shape)} does not fit the model ({shape}): "
                "it was trained with other parts or another mfam section; run `dvc repro`"
            )
    model.load_state_dict(state, strict=False)
    return sorted(state)


def read_trained(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a stage's checkpoint."""
    return load_file(_there(folder / TRAINED))


def load_config(folder: Path) -> CalmConfig:
    """The configuration of a checkpoint; raises `CheckpointError` where it is missing, damaged or another model's."""
    path, kind = _there(folder / "config.json"), None
    with suppress(ValueError, LookupError, TypeError):  # no JSON, or other JSON
        kind = json.loads(path.read_bytes())["model_type"]
    if kind != CalmConfig.model_type:
        raise CheckpointError(f"{path}: not the configuration of a CALM, or damaged")
    return CalmConfig.from_pretrained(folder)


def _there(path: Path) -> Path:
    """A file of a checkpoint that exists."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: run the stage that makes it (`dvc repro`), or `dvc pull`")
    return path


def load_adapter(model: CalmForConditionalGeneration, folder: Path, *, trainable: bool) -> PeftModel | None:
    """The LoRA adapter of a checkpoint on the model's language model; None if it has none."""
    if not (folder / ADAPTER).is_dir():
        return None
    from peft import PeftModel

    return PeftModel.from_pretrained(model.language_model, folder / ADAPTER, is_trainable=trainable)


def save_complete(folder: Path, assembly: Assembly, adapter: PeftModel | None) -> None:
    """Write the whole model in transformers' format, adapters merged, and the adapter apart beside it."""
    model = assembly.model
    if adapter is not None:
        save_adapter(folder, adapter)
        model.language_model = adapter.merge_and_unload()
        unname(model)
    model.save_pretrained(folder)
    assembly.processor.save_pretrained(folder)


def unname(model: CalmForConditionalGeneration) -> None:
    """For a language model with an adapter merged: it is no longer the one that the adapter was made for."""
    for named in (model.language_model, model.language_model.config, model.config.text_config):
        named.name_or_path = ""


def load_complete(folder: Path, runtime: Runtime) -> Assembly:
    """Read a whole model back, on the device and in the number format that `runtime` says.

    Raises:
        FileNotFoundError: there is no model in `folder`.
        CheckpointError: it is damaged, another model's, or of an earlier calm, whose scores were made of other parts.
    """
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"there is no trained model in {folder}: run `make repro` (or `dvc repro`), or name one with --model"
        )
    dtype = resolve_dtype(runtime) if runtime.dtype != "auto" else "auto"
    config = load_config(folder)
    if config.score_width and not config.score_mean:
        raise CheckpointError(f"{folder}: an earlier calm has trained this model: train it again with `dvc repro`")
    try:
        model, read = CalmForConditionalGeneration.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (SafetensorError, RuntimeError) as error:  # cut off; tensors of other shapes
        raise CheckpointError(f"{folder}: weights damaged, or another model's: {str(error).splitlines()[0]}") from None
    if lacking := read["missing_keys"]:  # transformers draws them at random
        raise CheckpointError(f"{folder}: weights damaged, or another model's: they lack {min(lacking)}")
    processor = CalmProcessor.from_pretrained(folder)
    preprocessing = Preprocessing.of(processor.image_processor)
    return Assembly(placed(model, runtime), processor, preprocessing)


def load_pretrained_mfam(folder: Path, runtime: Runtime) -> tuple[CalmForConditionalGeneration, Preprocessing]:
    """Encoder and MFAM after pre-training (models/pretrain), with a language model without weights: enough to look."""
    config = load_config(folder / "attributes")
    vision = load_vision(config.provenance["vision"]["name"], resolve_dtype(runtime))
    with no_init_weights(), torch.device("meta"):
        model = CalmForConditionalGeneration(config, vision.model)
    device = resolve_device(runtime)
    model.vision_tower.to(device)
    model.mfam.to_empty(device=device)
    loaded = {name for run in ("attributes", "alignment") for name in load_trained(folder / run, model)}
    if missing := [name for name in model.state_dict() if name.startswith("mfam.") and name not in loaded]:
        raise CheckpointError(f"{folder}: the checkpoints lack '{missing[0]}': run `dvc repro`")
    return model.eval().requires_grad_(False), vision.preprocessing


def checkpoint_sha256(folder: Path) -> str:
    """One hash over weights and configuration of a checkpoint, printed with every score."""
    files = sorted(file for pattern in ("*.safetensors", "config.json") for file in folder.rglob(pattern))
    return sha256_text(json.dumps([[file.relative_to(folder).as_posix(), sha256_file(file)] for file in files]))
