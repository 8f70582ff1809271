"""Encoder features of unedited photographs on disk, by the content of photograph and encoder (`runtime.disk_features`).

The encoder is frozen in every stage, so four stages and any number of profiles with the same encoder compute the same
features. A photograph is encoded alone here: then its features depend on nothing but its bytes and the encoder, and a
run computes the same bits whether they were on disk or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from calm.io import atomic_file, sha256_text
from calm.model.build import Assembly
from calm.model.mfam import FEATURES, LevelTokens


class FeatureCache:
    """A folder of level tokens, a file for each photograph.

    Any number of processes may share it: files are written whole, and all write the same.
    """

    def __init__(self, folder: Path, assembly: Assembly) -> None:
        self.folder = folder / encoder_sha256(assembly)[:16]
        self.device = assembly.model.device

    def __call__(self, photograph: bytes, encode: Callable[[], LevelTokens]) -> LevelTokens:
        """Features (1, N, C) of a photograph by its stored bytes; by `encode` if they are not there or damaged."""
        name = hashlib.sha256(photograph).hexdigest()
        path = self.folder / name[:2] / f"{name}.safetensors"
        try:
            found = load_file(path, device=str(self.device))
            return LevelTokens(*(found[name] for name in FEATURES))
        except (FileNotFoundError, SafetensorError, KeyError):
            tokens = encode()
        with atomic_file(path) as part:
            save_file({name: tokens[name].contiguous().cpu() for name in FEATURES}, part)
        return tokens


def encoder_sha256(assembly: Assembly) -> str:
    """Hash of everything that decides the bits of a photograph's features beside the photograph."""
    config, model = assembly.model.config, assembly.model.vision_tower
    weights = hashlib.sha256()
    classes = {f"class_{source}": table for source, table in assembly.model.mfam.of_classes.items()}
    for name, tensor in sorted({**model.state_dict(), **classes}.items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    preprocessing = assembly.preprocessing
    parts = [
        weights.hexdigest(),
        [preprocessing.size, preprocessing.mean, preprocessing.std],
        [config.levels, config.grid, config.thematic_content],
        [str(model.dtype), model.device.type, torch.__version__, torch.get_num_threads()],
    ]
    return sha256_text(json.dumps(parts, sort_keys=True))
