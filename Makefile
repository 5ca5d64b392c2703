# The commands of a working day; each one sets up first what it needs. `make` alone lists them.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.up-to-date
ARGS ?=

# One torch thread in each of two test workers: more would only fight for the same cores.
test: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup quickstart format check test prove bench

help:
	@echo "make setup       make .venv and install Hone in it, with what development needs"
	@echo "make quickstart  setup, then see a model learn a task"
	@echo "make format      format the code and mend what can be mended"
	@echo "make check       formatting, lint, types, floors between rooms, house rules"
	@echo "make test        every proof at small size; ARGS='tests/data -k name' for some"
	@echo "make prove       the proofs at full size; ARGS as above"
	@echo "make bench       the benchmarks, beside the peers'"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Hone needs Python 3.11 or newer; say which: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q src
	@touch $(STAMP)

quickstart: setup
	$(BIN)/hone quickstart

format: setup
	$(BIN)/ruff check --fix --quiet src tests
	$(BIN)/ruff format src tests

check: setup
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check --output-format concise src tests
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -p no:cacheprovider tests/test_house.py

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

prove: setup
	$(BIN)/python -m pytest -m slow --timeout 0 -s $(ARGS)

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,dev]'
	$(BIN)/python benchmarks/throughput.py $(ARGS)
