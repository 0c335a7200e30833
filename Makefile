# `make demo` and `make test` need nothing but Python >= 3.10 and this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
# Another index for torch, if PyPI's build is not wanted: on Linux `make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu`
# spares the download of CUDA.
TORCH_INDEX ?=
# Processes that the tests run in.
JOBS ?= 2

.PHONY: help install demo docs test test-lowest test-newest lint check bench prove clean

help:
	@echo "make demo     adapt the embedded BLIP to new pictures: zero-shot, UniAdapter, full fine-tuning (~4 minutes)"
	@echo "make test     run the tests"
	@echo "make test-lowest, make test-newest   with the oldest and newest versions that pyproject.toml allows, in environments of their own"
	@echo "make check    lint, types and tests, as before a commit"
	@echo "make lint     lint and types alone"
	@echo "make docs     the documentation as a site, build/site/index.html"
	@echo "make bench    time and memory beside transformers' BLIP, written to benchmarks/results/"
	@echo "make prove    the long proofs: learning rates on validation, then seeds on the test split, written to results/"
	@echo "make install  set up $(VENV) and nothing else"
	@echo "make clean    remove $(VENV), runs and caches"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; '$(PYTHON)' is older or missing. Say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing: on Debian or Ubuntu, 'apt install python3-venv'; on Fedora it is part of python3."; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $(INSTALLED)

$(TESTABLE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(TESTABLE)

install: $(TESTABLE)

demo: $(INSTALLED)
	$(BIN)/uniadapter demo

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html; python3 -m http.server -d build/site shows it at http://localhost:8000"

# A file's tests stay in one process, so that they share what they load; a process takes about 3 GB.
test: $(TESTABLE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# uv chooses the versions: "lowest-direct" takes the oldest of each package that is named, and for theirs the newest that fits.
test-lowest test-newest: test-%:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --upgrade pip uv
	.venv-$*/bin/uv pip install --quiet --python .venv-$* --upgrade --resolution $(if $(filter lowest,$*),lowest-direct,highest) \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --index-strategy unsafe-best-match) -e ".[dev]"
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n $(JOBS) --dist loadfile

lint: $(TESTABLE)
	$(BIN)/ruff check src tests world benchmarks docs
	$(BIN)/ruff format --check src tests world benchmarks docs
	$(BIN)/mypy

check: lint test

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	for what in base_size rerank same_metric training overhead scaling where linear rank frames growth decode loading pictures costs large_batch messages; do $(BIN)/python benchmarks/$$what.py || exit 1; done

prove: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[caption,easy-vqa]"
	for task in scenes video vqa videoqa easy_vqa caption; do $(BIN)/python benchmarks/prove.py $$task || exit 1; done

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest runs build/site .pytest_cache .mypy_cache .ruff_cache
