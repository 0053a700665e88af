# One line for each task; a new user needs only `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
LOCK := $(COMPILE) pyproject.toml
PEERS := bench/peers/requirements
# Tests of a package that share a service stay in one worker until a worker is idle.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/deploy
.DEFAULT_GOAL := help
.PHONY: help demo stop setup test test-all deploy-test verify lint format bench lock

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: .venv/demo ## Sample, train, promote, and serve the page at http://localhost:5000
	@$(BIN)/peerloan demo

stop: .venv/demo ## Stop the demo's server
	@$(BIN)/peerloan demo --stop

setup: .venv/dev ## Install everything for work on the project
	@$(BIN)/pre-commit install --install-hooks >/dev/null 2>&1 || true

test: .venv/dev ## Run the tests of every room: a few minutes
	@$(PYTEST) -m "not longer"

test-all: .venv/dev .venv-clients/done ## Run the others: PostgreSQL, browser, faults under load, stock clients
	@$(PYTEST) -m longer

deploy-test: .venv/dev ## Build the images, and prove in an engine that nothing stops
	@$(BIN)/python -m pytest -n 3 tests/deploy

verify: .venv/dev .venv-clients/done ## Fuzz, soak and simulate in full size; the results go to docs/verification.md
	@$(BIN)/python bench/verification.py $(PARTS)

lint: .venv/dev ## Check style, types and the contracts between the rooms
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv/dev ## Put the code into its format
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

bench: .venv/dev ## Measure the service side by side with its peers; the first time installs them
	@$(BIN)/python bench/serving.py --peers

lock: .venv/bin/pip ## Compile the locks anew
	@$(PIP) uv
	@$(LOCK) --group dev --group build --extra train -o requirements/dev.txt
	@$(LOCK) --extra train -c requirements/dev.txt -o requirements/train.txt
	@$(LOCK) -c requirements/dev.txt -o requirements/serve.txt
	@$(COMPILE) -c requirements/dev.txt --group build -o requirements/build.txt
	@$(COMPILE) requirements/clients.in -o requirements/clients.txt
	@$(COMPILE) -c requirements/dev.txt $(PEERS)/base.in -o $(PEERS)/base.txt
	@for peer in flask fastapi mlserver bentoml mlflow; do $(COMPILE) -c $(PEERS)/base.txt $(PEERS)/$$peer.in -o $(PEERS)/$$peer.txt || exit; done

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/pip requirements/train.txt requirements/build.txt pyproject.toml
	@echo "Installing (about a minute) …"
	@$(PIP) --require-hashes -r requirements/build.txt -r requirements/train.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/demo requirements/dev.txt
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# The Open Inference Protocol's stock clients agree with one another, but not with our versions.
.venv-clients/done: requirements/clients.txt .venv/bin/pip
	@$(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/clients.txt
	@touch $@
