# Everything a person does with this repository. `make demo` and `make test` set up all they need and may be run twice.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
JOB_VENV := .venv-job
BIN := $(VENV)/bin
UV := $(BIN)/uv
STATE ?= .state
PORT ?= 8470
PYTEST := $(BIN)/python -m pytest
FAST_TESTS := tests/tidy tests/domain tests/quotas tests/decision tests/billing

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements/bootstrap.txt requirements/dev.txt pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Terrace needs Python 3.11 or newer; name one with PYTHON=")'
	@echo "Setting up $(VENV) (the service and its tests)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt requirements/bootstrap.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e client
	@touch $@

$(JOB_VENV)/.ready: $(VENV)/.ready requirements/job.txt client/pyproject.toml $(shell find client/terrace -name '*.py')
	@echo "Setting up $(JOB_VENV) (Ray, where users' code runs)"
	@test -x $(JOB_VENV)/bin/python || $(PYTHON) -m venv $(JOB_VENV)
	@$(UV) pip sync --quiet --python $(JOB_VENV)/bin/python --require-hashes requirements/job.txt
	@rm -rf .cache/wheels && $(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python client -o .cache/wheels
	@$(UV) pip install --quiet --python $(JOB_VENV)/bin/python --no-deps .cache/wheels/terrace-*.whl
	@touch $@

.PHONY: setup
setup: $(VENV)/.ready $(JOB_VENV)/.ready ## Install everything, hash-locked, into two environments beside the code

.PHONY: demo
demo: setup ## Two startups train on leased slices of simulated GPUs, under quota, and get a usage report
	@$(BIN)/python -m examples.demo --job-python $(JOB_VENV)/bin/python

.PHONY: up
up: setup ## Run the whole service here in the foreground and print what to try next
	@$(BIN)/terraced up --state-dir $(STATE) --port $(PORT) --job-python $(JOB_VENV)/bin/python

.PHONY: quick
quick: $(VENV)/.ready ## Linters, types, import contracts and the fast tests, under a minute
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports > .lint-imports.log 2>&1 || { cat .lint-imports.log; exit 1; }
	@$(BIN)/mypy
	@$(PYTEST) -q -x $(FAST_TESTS)

.PHONY: check
check: $(VENV)/.ready ## Linters, formatting, types and import contracts, exactly as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: test
test: setup ## The whole test suite, with a real database server and real Ray
	$(PYTEST) tests -m "not helm"

.PHONY: test-two
test-two: setup ## The same in two workers, for machines that have the cores; what looks at the whole machine stays on one
	$(PYTEST) tests -m "not helm" -n 2 --dist loadgroup

.PHONY: test-helm
test-helm: setup ## Render the Helm chart and check every object (builds the Helm engine once, which takes minutes)
	deploy/tools/build.sh
	$(PYTEST) tests/helm

.PHONY: bench
bench: setup ## Measure, print a table and rewrite docs/benchmarks.md
	$(BIN)/python -m benchmarks --job-python $(JOB_VENV)/bin/python

.PHONY: mutants
mutants: $(VENV)/.ready ## Change quotas and decisions a little, again and again, and see whether the tests notice (15 minutes)
	$(BIN)/python -m tests.mutants

.PHONY: format
format: $(VENV)/.ready ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(VENV)/.ready ## Rewrite the hash locks from the pyproject files
	requirements/compile.sh

.PHONY: clean
clean: ## Remove environments, caches and the state of `make up`
	rm -rf $(VENV) $(JOB_VENV) .cache .lint-imports.log .mypy_cache .ruff_cache .pytest_cache .hypothesis $(STATE)
