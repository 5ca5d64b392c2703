# The commands of a working day; each one sets up first what it needs. `make` alone lists them.

PYTHON ?= python3
BIN := .venv/bin
RUNS := .venv/.runs
DEVELOPS := .venv/.develops
DISTRIBUTES := .venv/.distributes
ARGS ?=

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Bytecode on every core afterwards: pip would do it on one. Some packages carry files that do not compile.
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib src || true

# One torch thread in each of two test workers: more would only fight for the same cores.
test: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help

# What a user's project has too: make train-bnb, make eval and so on, with this checkout's Hone.
HONE := $(BIN)/hone
READY := $(RUNS)
include workflows/targets.mk
.PHONY: help setup setup-distributed quickstart format check test gpu prove bench docs docs-reference

help:
	@echo "make setup       make .venv and install Hone in it, with what development needs"
	@echo "make setup-distributed  the same, and what several ranks can use: DeepSpeed, Ray"
	@echo "make quickstart  install what Hone itself needs, then see a model learn a task"
	@echo "make format      format the code and mend what can be mended"
	@echo "make check       formatting, lint, types, floors between rooms, house rules"
	@echo "make test        every proof at small size; ARGS='tests/data -k name' for some"
	@echo "make gpu         the proofs that need a GPU; without one they are skipped with the reason"
	@echo "make prove       the proofs at full size; ARGS as above"
	@echo "make docs        the documentation as a site in build/docs; a broken link fails"
	@echo "make docs-reference  write docs/reference from the code"
	@echo "make bench       the benchmarks, beside the peers'"
	@echo
	@$(MAKE) --no-print-directory project-help

setup: $(DEVELOPS)

$(DEVELOPS): pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[dev]'
	@$(COMPILE)
	@touch $(RUNS) $(DEVELOPS)

setup-distributed: $(DISTRIBUTES)

$(DISTRIBUTES): $(DEVELOPS)
	$(PIP) -e '.[dev,distributed]'
	@$(COMPILE)
	@touch $(DISTRIBUTES)

$(RUNS): pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@$(COMPILE)
	@touch $(RUNS)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hone needs Python 3.11 or newer; say which: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

quickstart: $(RUNS)
	$(BIN)/hone quickstart

format: setup
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -p no:cacheprovider tests/test_house.py

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

gpu: setup
	$(BIN)/python -m pytest -m gpu --timeout 0 -rs tests/gpu $(ARGS)

prove: export HYPOTHESIS_PROFILE ?= hone

prove: setup-distributed
	$(BIN)/python -m pytest -m slow --timeout 0 -s $(ARGS)

bench: setup
	$(PIP) -e '.[bench,dev]'
	$(BIN)/python benchmarks/throughput.py $(ARGS)

docs: setup docs-reference
	$(BIN)/zensical build --strict --clean

docs-reference: setup
	$(BIN)/python -m docs_from_code
