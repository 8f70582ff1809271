"""Small datasets made by the tests, and parameters that name them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from calm.data.sources import photos
from calm.params import Params, parse_params

REPOSITORY = Path(__file__).parents[2]
ROLES = ("unlabelled", "generic", "comments", "scores", "raters")
# One photograph of each wheel, two of one group, and enough groups for a split.
FEW = ("astronaut", "chelsea", "eiffel-1", "eiffel-2", "tomato_14", "rocket", "flowers1", "pexels-karola-g-7602925")
MakeParams = Callable[..., Params]


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A colourful picture of smooth patches, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def make_params() -> MakeParams:
    """params.yaml with other datasets and roles."""

    def make(datasets: dict[str, Any], roles: dict[str, list[str]] | None = None, **data: Any) -> Params:
        raw = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
        raw["data"]["datasets"] = datasets
        raw["data"]["roles"] = {role: (roles or {}).get(role, []) for role in ROLES}
        for section, values in data.items():
            raw["data"][section].update(values)
        return parse_params(raw, "test")

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photographs, one of them in a folder of its own."""
    root = tmp_path / "mine"
    (root / "sub").mkdir(parents=True)
    for number in range(11):
        picture(number).save(root / f"p{number:02d}.png")
    picture(99).save(root / "sub" / "p99.jpg", quality=90)
    return root


@pytest.fixture
def scored(folder: Path) -> Path:
    """The folder with a csv that scores every photograph and has comments on one."""
    lines = ["file,score,rater,comment"]
    lines += [f"p{number:02d}.png,{1 + number % 7},,{'Lovely light.' if number == 3 else ''}" for number in range(11)]
    lines += ["sub/p99.jpg,4,ann,", "sub/p99.jpg,7,ben,"]
    (folder / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def scored_params(scored: Path, make_params: MakeParams) -> Params:
    """Parameters that read the scored folder."""
    settings = {"root": str(scored), "csv": "scores.csv", "score_min": 1.0, "score_max": 7.0, "licence": "test"}
    return make_params({"local": settings}, {"unlabelled": ["local"], "scores": ["local"], "comments": ["local"]})


@pytest.fixture
def few_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's list cut down to eight photographs."""
    for package, _ in photos.FOLDERS.values():
        if find_spec(package) is None:  # the wheels come without their dependencies, so importing proves nothing
            pytest.skip(f"needs the demo photographs (extra 'demo'): {package} is not installed")
    with photos.LIST.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if Path(row["file"]).stem in FEW]
    return use_list(rows, tmp_path / "few.csv", monkeypatch)


def use_list(rows: list[dict[str, str]], path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the source `photos` read another list."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(photos, "LIST", path)
    return path


def photos_settings(**changes: int) -> dict[str, int]:
    """Settings of the source `photos` for tests."""
    return {"views": 2, "max_edits": 2, "raters": 3, "ratings_per_rater": 9, "comments": 2, "praise": 3, **changes}
