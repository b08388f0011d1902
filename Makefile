# The same targets serve people and CI. `make demo` and `make test` install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELYARD_HOME ?= $(HOME)/.modelyard
export MODELYARD_HOME
# With this set, Python compiles everything anew at each start.
unexport PYTHONDONTWRITEBYTECODE

# Much of the tests' time is waiting. A file stays with one worker, and files go in their order, so that long ones are not left for the end.
PYTEST_OPTIONS := -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo up down test check bench gen clean lock

help: ## What there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed ## The command at .venv/bin/modelyard

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || bash tools/venv_without_ensurepip.sh $(PYTHON) $(VENV)

$(VENV)/.installed: requirements/runtime.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/runtime.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

$(VENV)/.installed-demo: requirements/demo.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/demo.lock
	@touch $@

$(VENV)/.installed-browser: tools/chromium.sh | $(VENV)/bin/python
	bash tools/chromium.sh
	@touch $@

demo: $(VENV)/.installed-demo ## Start the platform and do the main job: upload, train, model, endpoint, predict
	@$(BIN)/modelyard status >/dev/null 2>&1 || $(BIN)/modelyard up --detach
	$(BIN)/python examples/demo.py

up: install ## Start the platform in the foreground
	$(BIN)/modelyard up

down: install ## End the platform
	$(BIN)/modelyard down

check: $(VENV)/.installed-dev ## Format, lint, types, imports, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright
	$(BIN)/python tools/generate.py --check
	$(BIN)/pytest $(PYTEST_OPTIONS) -m "not slow"

test: $(VENV)/.installed-dev $(VENV)/.installed-demo $(VENV)/.installed-browser ## Everything, with the real parts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/generate.py --check
	@# Types and the environments of the frameworks take a core for minutes each; the first tests leave one free.
	nice $(BIN)/python tools/test_environments.py & \
	nice $(BIN)/pyright > $(VENV)/pyright.log 2>&1 & types=$$!; \
	tests=0; $(BIN)/pytest $(PYTEST_OPTIONS) || tests=$$?; \
	wait $$types || { cat $(VENV)/pyright.log; exit 1; }; exit $$tests

bench: $(VENV)/.installed-dev $(VENV)/.installed-demo ## The figures that the README quotes
	for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script; done

gen: $(VENV)/.installed-dev ## OpenAPI and the state diagrams
	$(BIN)/python tools/generate.py

lock: $(VENV)/.installed-dev ## Pin dependencies anew
	bash tools/lock.sh $(BIN)/uv

clean: ## Take away what was built here (not the platform's home)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
