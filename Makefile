# Everything a contributor types. On a bare machine: Python 3.11+, make and git.
# `make VENV=/elsewhere test` uses another environment; `make EXTRAS=data,local test` installs less.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= data,plot,postgres,local,dev
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install quickstart test soak bench lint types format clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## Make the environment in .venv (2 to 3 minutes; pinned by constraints.txt)

# pip, not another installer: it compiles what it installs, so that the first imports are not slow.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cloudtune needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

quickstart: $(READY)  ## Fetch a small real model, tune it on real headlines, compare before and after
	$(BIN)/python examples/quickstart/quickstart.py

test: lint types  ## What a change can break, in about 10 minutes on 2 cores
	$(PYTEST)

soak: $(READY)  ## The long counts: hundreds of kills and fault schedules, large files, real weights
	$(PYTEST) -m "soak or real_weights" --timeout 3600

bench: $(READY)  ## Speed against peers, in one run (installs trl beside the rest)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS),bench]"
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

lint: $(READY)  ## Style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)  ## mypy --strict on the three source roots
	$(BIN)/mypy

format: $(READY)  ## Rewrite the files in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment, the caches and what the quickstart fetched
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist examples/quickstart/.cache
	find src providers local_backend tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
