# The commands a person needs. `make demo` and `make test` set up everything they use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests that share something expensive stay on one worker (tests/conftest.py). The slowest end the output. The fast tests use
# one worker per core; the slow ones one more, because they often wait: for a cluster, a signal, a browser. Python may
# write bytecode, or each worker would rewrite the assertions of all tests again, and each process compile lmexp.
PYTEST := $(BIN)/python -m compileall -q lmexp && PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist loadgroup --no-loadscope-reorder --durations=20

.PHONY: help setup demo test test-slow test-browser test-long lint audit bench columns clean

help:        ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(READY)  ## the virtual environment, from constraints.txt

# One stamp: the environment is rebuilt only when what it is made from has changed.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## the demo study: 8 runs, a table, a report
	$(BIN)/lmexp sweep demo

test: setup  ## the fast tests, in a few minutes
	$(PYTEST) -n auto -m "not slow and not long"

test-slow: setup  ## the slow tests: whole studies, several processes, Slurm, Ray, the browser; CI runs them too
	$(PYTEST) -n $$(( $$(nproc) + 1 )) -m "slow and not long"

test-browser: setup  ## the report pages in Chromium alone; `make test-slow` has them as well
	$(PYTEST) tests/browser

test-long: setup  ## the long simulations, 60 kills, and a model held against a public trainer
	$(PYTEST) -m long

lint: setup  ## formatting, style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: setup  ## the pins of constraints.txt against known advisories; OPTIONS="--vulnerability-service osv" asks another service
	$(BIN)/python release/audit.py $(OPTIONS)

bench: setup  ## the measured claims in benchmarks/; those of GPUs: python benchmarks/gpu.py
	@for script in $(filter-out benchmarks/gpu.py benchmarks/__init__.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

columns: setup  ## docs/columns.md, from lmexp/runs/columns.py
	$(BIN)/python -m lmexp.runs.columns_text > docs/columns.md

clean:       ## remove the virtual environment and caches (outputs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
