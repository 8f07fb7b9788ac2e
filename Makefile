# Two commands do all set-up: `make demo` runs the main job, `make test` proves the house.
PYTHON ?= python3
BIN := .venv/bin
# XLA prints a page of CPU features when it reads its own cache; the messages say nothing to a user.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test long soak check lint lock docs bench bench-env cookbook-env tensorboard clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/.ready  ## make .venv with the pinned, hash-checked dependencies

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Tracetune needs Python 3.11 or newer, got $$($(PYTHON) --version); run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## traces → dataset → SFT → GRPO → evaluation → report, in minutes, offline
	@$(BIN)/tracetune demo

lint: setup  ## style and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/basedpyright --level error

# Files in order rather than by number of tests: the long files of few tests would all come last.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint  ## the fast checks of every commit: lint, types, laws, unit tests
	@$(BIN)/pytest -n 2 -m "not (slow or long or soak)"

test: setup  ## what must hold on one machine with SQLite, style and types included
	@$(PYTEST) -m "not (long or soak)"

long: setup  ## the rest, which continuous integration runs too: PostgreSQL, a browser, other programs, kills, more rows
	@$(PYTEST) -m "long and not soak"

soak: setup  ## hours: all tests and rows, compiled as users do, 20,000 drawn requests, 70 ends under load, a million traces
	TRACETUNE_OPTIMIZED=1 $(PYTEST)
	TRACETUNE_FUZZ_CASES=20000 $(BIN)/pytest tests/api/test_openapi.py
	$(BIN)/python bench/lifecycle.py --terms 50 --kills 20
	$(BIN)/python bench/upload.py --rows 1000000 --kills 20

lock: setup  ## pin the dependencies anew, with hashes and without index hosts
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --extra dev pyproject.toml --output-file requirements.lock

docs: setup  ## the documentation as pages that work offline: docs/_build
	@$(BIN)/python -m docs.pages.configuration
	@$(BIN)/python -m sphinx -qWj auto --keep-going -c docs . docs/_build
	@echo 'open docs/_build/index.html'

bench: setup  ## the figures of docs/performance.md on this machine
	$(BIN)/python bench/sft.py
	$(BIN)/python bench/grpo.py
	$(BIN)/python bench/lora_memory.py
	$(BIN)/python bench/ingest.py
	$(BIN)/python bench/store.py

bench-env: .bench/trl/.ready .bench/tunix/.ready  ## the environments of TRL and Tunix for bench/compare.py

.bench/%/.ready: bench/peers/%.txt
	$(PYTHON) -m venv .bench/$*
	.bench/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

cookbook-env: .bench/cookbook/.ready  ## the environment of tinker-cookbook, whose recipes the suite runs

# Torch by itself first, so that a build at hand is taken; the cookbook last, without the one package nobody can get.
.bench/cookbook/.ready: bench/peers/cookbook.txt
	$(PYTHON) -m venv .bench/cookbook
	.bench/cookbook/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' $<)
	.bench/cookbook/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.bench/cookbook/bin/python -m pip install --quiet --disable-pip-version-check --no-deps tinker-cookbook==0.6.1
	@touch $@

LOGS ?= outputs
tensorboard: setup  ## curves of the runs under LOGS (outputs) at port 6006
	@$(BIN)/python -c 'import tensorboard' 2>/dev/null || \
		{ echo 'error: TensorBoard is not installed; run $(BIN)/pip install -e ".[tensorboard]"' >&2; exit 1; }
	@$(BIN)/python -m tensorboard.main --logdir $(LOGS) --port 6006

clean:  ## remove the environment and caches; artifacts/ stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
