"""The model that comes with calm: one file of what was trained, read around the frozen parts that the wheels bring.

The file holds the MFAM and the score head in float32, the adapter of the language model as `adapter.MODULE.lora_A` and
`lora_B`, and the ids of the words that tell recognised states. Its metadata say the model's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from calm.attributes.taxonomy import taxonomy
from calm.io import atomic_file
from calm.model.build import (
    ADAPTER,
    Assembly,
    CheckpointError,
    assemble_named,
    embedded,
    load_config,
    unname,
    word_ids,
)
from calm.model.processing import CalmProcessor
from calm.model.settings import Runtime

FOLDER = Path(__file__).parents[1] / "released"
WEIGHTS = "released.safetensors"
CARD = "MODEL_CARD.md"
WORDS = "mfam.words"  # kept as ids: the words' embeddings are the language model's
OWN = ("mfam.", "score_head.")
A, B = "lora_A", "lora_B"
KEY = "calm"  # of the file's metadata


def write_released(source: Path, folder: Path, metadata: Mapping[str, str]) -> None:
    """Write what was trained of the whole model in `source`; the same model always gives the same bytes.

    Args:
        metadata: `name` of the model.

    Raises:
        CheckpointError: it was not trained with an adapter.
    """
    from peft import LoraConfig

    config = load_config(source)
    if not (source / ADAPTER).is_dir():
        raise CheckpointError(
            f"{source}: only a model trained with an adapter can be released: finetune.tuning.kind: lora"
        )
    state = load_file(source / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if name.startswith(OWN)}
    if WORDS in kept:
        tokenizer = CalmProcessor.from_pretrained(source).tokenizer
        del kept[WORDS]
        kept[WORDS] = torch.tensor(word_ids(tokenizer, taxonomy(), config.attribute_states, config.told_length))
    for name, tensor in load_file(source / ADAPTER / "adapter_model.safetensors").items():
        kept[f"adapter.{name.removeprefix('base_model.model.').removesuffix('.weight')}"] = tensor
    adapter = LoraConfig.from_pretrained(source / ADAPTER)
    scaling = float(adapter.lora_alpha) / int(adapter.r)
    with atomic_file(folder / WEIGHTS) as part:
        # Under one key: safetensors writes several in any order.
        save_file(dict(sorted(kept.items())), part, metadata={KEY: json.dumps({"scaling": scaling, **metadata})})
    with atomic_file(folder / "config.json") as part:
        config.to_json_file(part, use_diff=False)


def is_released(folder: Path) -> bool:
    """Whether a folder holds such a file instead of a whole model."""
    return (folder / WEIGHTS).is_file()


def metadata(folder: Path) -> dict[str, str]:
    """What the file says of itself: `name`."""
    with _opened(folder / WEIGHTS) as file:
        return _metadata(file)


def load_released(folder: Path, runtime: Runtime) -> Assembly:
    """The model around the parts that its configuration names, with the adapter merged.

    Raises:
        CheckpointError: the file is damaged, of another model, or a part has other weights than the one trained with.
    """
    config = load_config(folder)
    trained_with = config.provenance
    assembly = assemble_named(config, runtime, seed=0)
    for key, part in trained_with.items():
        if (found := config.provenance[key]) != part:
            raise CheckpointError(f"{folder}: it was trained with {key} part {part}, but here is {found}")
    with _opened(folder / WEIGHTS) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        scaling = float(_metadata(file)["scaling"])
    adapter = {name: state.pop(name) for name in list(state) if name.startswith("adapter.")}
    model = assembly.model
    if WORDS in state:
        state[WORDS] = embedded(state[WORDS].tolist(), model.get_input_embeddings())
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # torch's, of shapes
        raise CheckpointError(f"{folder / WEIGHTS}: of another model: {error}") from None
    if wrong := [*(name for name in missing if name.startswith(OWN)), *unexpected]:
        raise CheckpointError(f"{folder / WEIGHTS}: of another model: {wrong[0]}")
    _merge(model.language_model, adapter, scaling)
    unname(model)
    return assembly


@torch.no_grad()
def _merge(language_model: torch.nn.Module, adapter: Mapping[str, torch.Tensor], scaling: float) -> None:
    """As peft does, whose import takes seconds."""
    for name in adapter:
        module, _, kind = name.removeprefix("adapter.").rpartition(".")
        if kind == A:
            weight = language_model.get_parameter(f"{module}.weight")
            change = (adapter[f"adapter.{module}.{B}"] @ adapter[name]) * scaling
            weight.add_(change.to(weight.device))


def _metadata(file: safe_open) -> dict[str, str]:
    said = (file.metadata() or {}).get(KEY)
    if said is None:
        raise CheckpointError(f"{WEIGHTS} is no file that calm wrote: install calm again, or run `calm release`")
    found: dict[str, str] = json.loads(said)
    return found


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or not there ({error}): install calm again") from None
