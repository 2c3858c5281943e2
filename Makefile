# Everything a contributor types. On a bare machine: Python 3.11+, make and git.
# `make VENV=/elsewhere test` uses another environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := data,plot,local
ALL := $(RUN),audio,images,postgres,openai,openai-tokens,azure,aws,ray,emulator,evaluate,tune,docs,dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Every distribution is checked against the hashes in requirements/. torch is pinned by its version alone, because its
# builds (CPU, CUDA) come from several indexes; cloudtune itself has no hash.
LOCKED := $(PIP) --require-hashes --no-deps
TORCH := $(PIP) -c constraints.txt torch
EDITABLE := $(PIP) --no-build-isolation -c constraints.txt
# What is compiled when cloudtune is installed.
COMPILED := hatch_build.py src/cloudtune/data/_conversations.c
PYTEST := $(BIN)/python -m pytest
# Two more than a small machine has cores: many tests wait for a process or a port.
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help install quickstart test soak bench references lint types docs format lock audit clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.all  ## Make the environment in .venv, every file checked by its hash (a few minutes)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cloudtune needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# pip, not another installer: it compiles what it installs, so that first imports are not slow.
$(VENV)/.run: pyproject.toml requirements/quickstart.txt $(COMPILED) | $(BIN)/python
	$(LOCKED) -r requirements/quickstart.txt
	$(TORCH)
	$(EDITABLE) -e ".[$(RUN)]"
	@touch $@

$(VENV)/.all: pyproject.toml requirements/all.txt $(COMPILED) | $(BIN)/python
	$(LOCKED) -r requirements/all.txt
	$(TORCH)
	$(EDITABLE) -e ".[$(ALL)]"
	@touch $@ $(VENV)/.run

quickstart: $(VENV)/.run  ## Fetch a small real model, tune it on real headlines, compare before and after
	$(BIN)/python examples/quickstart/quickstart.py

# mypy has one process: beside the tests it uses what they leave of the cores.
test: lint  ## What a change can break, in about 18 minutes on 2 cores
	@report=$$(mktemp); $(BIN)/mypy >$$report 2>&1 & types=$$!; \
	$(PYTEST) -n $(WORKERS) --dist worksteal; tests=$$?; \
	wait $$types; types=$$?; cat $$report; rm $$report; exit $$((tests || types))

soak: $(VENV)/.all  ## The long counts: hundreds of kills and fault schedules, large files, real weights, qlora
	$(PIP) -c constraints.txt --no-deps --upgrade --target $(VENV)/qlora bitsandbytes
	PYTHONPATH=$(VENV)/qlora $(PYTEST) tests/local/training -k qlora -m "" --timeout 3600
	$(PYTEST) -m "soak or real_weights" --timeout 3600
	EXAMPLES_FACTOR=20 $(PYTEST) -m "hypothesis and not soak" --timeout 3600

bench: $(VENV)/.all  ## Speed against peers, in one run (installs trl beside the rest)
	$(EDITABLE) -e ".[$(ALL),bench]"
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

references: $(VENV)/.all  ## Results on real weights and data against published or customary marks (QUICK=1: fewer rows)
	$(BIN)/python benchmarks/references/run.py

lint: $(VENV)/.all  ## Style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.all  ## mypy --strict on the three source roots
	$(BIN)/mypy

docs: $(VENV)/.all  ## Build the documentation site in site/; fails for broken links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.all  ## Rewrite the files in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: | $(BIN)/python  ## Write requirements/ anew from constraints.txt
	$(PIP) uv
	$(BIN)/python .ci/lock.py

audit: $(VENV)/.all  ## Look the pins up in the advisory database; says so where that cannot be reached
	$(PYTHON) -m venv $(VENV)/audit
	if $(VENV)/audit/bin/python -m pip install --quiet pip-audit; then $(VENV)/audit/bin/python .ci/audit.py; \
	else echo "pip-audit: not run: it cannot be installed"; fi

clean:  ## Remove the environment, the caches and what the quickstart fetched
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist site examples/quickstart/.cache examples/quickstart/*-report.html
	find src providers local_backend tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
