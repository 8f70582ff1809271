"""The environment is one: pyproject, the locks, environment.yml and the Makefile agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[1]
# Extras in folders of their own, and what they have there in another version than base.lock.
APART: dict[str, set[str]] = {"cluster": set(), "remote": {"python-dateutil"}, "page": {"tomlkit"}}
CAUTION = {("gradio", "pillow")}  # bounds that requirements/apart.py passes over: tests of the page run beyond them
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def locked(name: str) -> dict[str, Version]:
    """Packages of a lock file and their versions; every one must carry hashes."""
    text = (REPOSITORY / "requirements" / name).read_text().replace("\\\n", " ")
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)(.*)", text, flags=re.MULTILINE)
    assert all("--hash=sha256:" in rest for _, _, rest in pins)
    return {canonicalize_name(package): Version(version) for package, version, _ in pins}


@pytest.fixture(scope="module")
def conda() -> dict[str, MatchSpec]:
    """Packages of environment.yml, each parsed by conda's own rules."""
    described = YAML(typ="safe").load((REPOSITORY / "environment.yml").read_text())
    specs = [MatchSpec(line, strict=True) for line in described["dependencies"]]
    return {spec.name.normalized: spec for spec in specs}


def test_conda_brings_what_pypi_does_not(conda: dict[str, MatchSpec]) -> None:
    assert set(conda) >= {"python", "pip", "git", "make", "openjdk", "cxx-compiler"}


def test_conda_takes_a_python_that_the_project_supports(conda: dict[str, MatchSpec]) -> None:
    version = str(conda["python"].version).lstrip("=").removesuffix(".*")
    assert Version(f"{version}.0") in Requirement(f"calm{PROJECT['requires-python']}").specifier


def test_conda_takes_the_pip_and_setuptools_that_the_build_needs(conda: dict[str, MatchSpec]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for name in ("pip", "setuptools"):
        assert f"'{name}{conda[name].version}'" in makefile


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
def test_the_base_lock_holds_every_requirement_in_the_range_that_pyproject_asks(requirement: str) -> None:
    wanted = Requirement(requirement)
    name = canonicalize_name(wanted.name)
    pins = locked("base.lock")
    if name == "torch":  # apart, so that pip may take a CPU build of it
        assert name not in pins
        pins = {"torch": Version((REPOSITORY / "requirements/torch.txt").read_text().strip().partition("==")[2])}
    assert pins[name] in wanted.specifier


def test_the_demo_lock_holds_the_demo_extra_and_nothing_else() -> None:
    wanted = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["optional-dependencies"]["demo"])}
    pins = locked("demo.lock")
    assert pins.keys() == wanted.keys()
    assert all(pins[name] in requirement.specifier for name, requirement in wanted.items())


@pytest.mark.parametrize("extra", APART)
def test_a_lock_apart_holds_its_extra_and_nothing_that_base_lock_has(extra: str) -> None:
    pins, base = locked(f"{extra}.lock"), locked("base.lock")
    for wanted in map(Requirement, PROJECT["optional-dependencies"][extra]):
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier
    assert {name for name in pins if name in base} == APART[extra]
    assert all(pins[name] != base[name] for name in APART[extra])


@pytest.mark.parametrize("extra", APART)
def test_packages_apart_find_what_they_need_there_or_in_the_environment(extra: str) -> None:
    """They are installed without a resolver."""
    folder = Path(sys.prefix) / extra
    if not folder.is_dir():
        pytest.skip(f"{extra} is not installed: make apart")
    pins = locked("base.lock") | locked(f"{extra}.lock")
    pins["torch"] = Version((REPOSITORY / "requirements/torch.txt").read_text().strip().partition("==")[2])
    installed = list(metadata.distributions(path=[str(folder)]))
    assert {canonicalize_name(package.name) for package in installed} == locked(f"{extra}.lock").keys()
    wanted = ((package.name, Requirement(line)) for package in installed for line in package.requires or ())
    for name, needed in wanted:
        if (name, needed.name) in CAUTION:
            continue
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            assert pins[canonicalize_name(needed.name)] in needed.specifier, needed


def test_the_lock_of_the_harness_holds_its_list_and_nothing_that_base_lock_has() -> None:
    listed = (REPOSITORY / "harness/lmms_eval/requirements.in").read_text().splitlines()
    pins, base = locked("../harness/lmms_eval/requirements.lock"), locked("base.lock")
    for wanted in (Requirement(line) for line in listed if not line.startswith("#")):
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier
    assert [name for name in pins if pins[name] == base.get(name)] == []
    assert not {"torch", "torchvision", "pillow"} & pins.keys()


def test_pipeline_stages_run_without_deepspeed_and_tests_with_it() -> None:
    """transformers imports it wherever it is."""
    assert "deepspeed" in locked("cluster.lock")
    assert "deepspeed" not in locked("base.lock").keys() | locked("demo.lock").keys()
    for target, wanted in (("env", False), ("test", True)):
        commands = would_run(target)
        assert all((f"requirements/{extra}.lock" in commands) == wanted for extra in APART), target


def test_packages_that_break_the_environment_stay_out() -> None:
    assert not {"torch", "torchvision", "torchaudio", "triton", "aac-metrics", "evaluate"} & locked("base.lock").keys()


def test_nothing_is_built_from_what_make_env_has_not_stamped() -> None:
    """`make env` after `make env` has nothing to do, and would have if a lock changed."""
    dry = would_run("env")
    for name in ("torch.txt", "base.lock", "demo.lock"):
        assert f"requirements/{name}" in dry
    assert dry.count("--require-hashes") == 2


def would_run(target: str) -> str:
    """What make would do for a target where nothing is installed."""
    command = ["make", "-n", target, "VENV=/nonexistent"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
