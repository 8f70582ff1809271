"""Encoder features on disk: the same bits with and without, by content, whatever happens to the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calm.attributes.taxonomy import LEVELS
from calm.model.build import Assembly, assemble
from calm.model.settings import Runtime
from calm.training.feature_cache import encoder_sha256
from calm.training.features import Features
from tests import tiny

KEYS = [(tiny.DATASET, name) for name in ("p3", "p0", "p5", "p3")]
ON_DISK = Runtime(device="cpu", dtype="float32", keep_features=False, disk_features=True)


@pytest.fixture
def assembly(tiny_template: Any) -> Assembly:
    return assemble(tiny_template.params())


def features(assembly: Assembly, world: Any, runtime: Runtime = ON_DISK) -> Features:
    return Features.of(assembly, [tiny.DATASET], runtime, world.layout)


def files(world: Any) -> list[Path]:
    return sorted(world.layout.state("features").rglob("*.safetensors"))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(one[level], other[level]) for level in LEVELS)


def encoded(monkeypatch: pytest.MonkeyPatch, assembly: Assembly) -> list[int]:
    """Sizes of the batches that pass the encoder from now on."""
    sizes: list[int] = []
    original = assembly.model.encode_images
    monkeypatch.setattr(
        assembly.model, "encode_images", lambda pixels: (sizes.append(len(pixels)), original(pixels))[1]
    )
    return sizes


def test_a_photograph_passes_the_encoder_once_and_has_the_same_bits_after(
    assembly: Assembly, tiny_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = encoded(monkeypatch, assembly)
    first = features(assembly, tiny_world)(KEYS)
    assert sizes == [1, 1, 1] and len(files(tiny_world)) == 3
    again = features(assembly, tiny_world)(KEYS[::-1])
    assert sizes == [1, 1, 1]
    assert all(torch.equal(first[level], again[level].flip(0)) for level in LEVELS)


def test_they_are_those_of_encoding_together_but_for_rounding(assembly: Assembly, tiny_world: Any) -> None:
    without = features(assembly, tiny_world, Runtime(device="cpu", dtype="float32", keep_features=True))
    found, expected = features(assembly, tiny_world)(KEYS), without(KEYS)
    for level in LEVELS:
        torch.testing.assert_close(found[level], expected[level], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40])
def test_a_damaged_file_is_made_again(assembly: Assembly, tiny_world: Any, damage: bytes) -> None:
    first = features(assembly, tiny_world)(KEYS)
    whole = [path.read_bytes() for path in files(tiny_world)]
    files(tiny_world)[0].write_bytes(damage)
    assert same(features(assembly, tiny_world)(KEYS), first)
    assert [path.read_bytes() for path in files(tiny_world)] == whole


def test_another_encoder_has_a_folder_of_its_own(assembly: Assembly, tiny_world: Any) -> None:
    before = encoder_sha256(assembly)
    features(assembly, tiny_world)(KEYS)
    with torch.no_grad():
        next(assembly.model.vision_tower.parameters()).add_(1e-3)
    assert encoder_sha256(assembly) != before
    features(assembly, tiny_world)(KEYS)
    assert len({path.parents[1] for path in files(tiny_world)}) == 2 and len(files(tiny_world)) == 6


def test_a_stage_trains_to_the_same_bits_whether_they_were_there_or_not(tiny_world: Any) -> None:
    from calm.io import sha256_file
    from calm.model.build import TRAINED
    from calm.training.pretrain import pretrain

    params = tiny_world.params(runtime__disk_features=True)
    hashes = []
    for _ in range(2):
        pretrain("alignment", params, tiny_world.layout)
        hashes.append(sha256_file(tiny_world.layout.pretrained("alignment") / TRAINED))
    assert hashes[0] == hashes[1]
    assert len(files(tiny_world)) == tiny.PICTURES - len(tiny.TEST)
