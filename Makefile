# One target for each task. A new user needs only `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
LOCK := $(COMPILE) pyproject.toml
PEERS := bench/peers/requirements
# worksteal: a worker gets tests in order, so that neighbours share a service. Idle workers take from others.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/deploy
.DEFAULT_GOAL := help
.PHONY: help demo stop setup test test-all deploy-test verify lint format bench lock

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: .venv/demo ## Make a sample, train, promote, and serve the page at http://localhost:5000
	@$(BIN)/peerloan demo

stop: .venv/demo ## Stop the demo's server
	@$(BIN)/peerloan demo --stop

setup: .venv/dev ## Install everything for development
	@$(BIN)/pre-commit install --install-hooks >/dev/null 2>&1 || true

test: .venv/dev ## Run the main tests: a few minutes
	@$(PYTEST) -m "not longer"

test-all: .venv/dev .venv-clients/done ## Run the longer tests: PostgreSQL, browser, failures under load, stock clients
	@$(PYTEST) -m longer

deploy-test: .venv/dev ## Build the images, and test in a container engine that no request fails
	@$(BIN)/python -m pytest -n 3 tests/deploy

verify: .venv/dev .venv-clients/done ## Run the longest checks; results go to docs/verification.md
	@$(BIN)/python bench/verification.py $(PARTS)

lint: .venv/dev ## Check style, types and the import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv/dev ## Format the code
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

bench: .venv/dev ## Compare the service with other servers; the first run installs them
	@$(BIN)/python bench/serving.py --peers

lock: .venv/bin/pip ## Update the lock files
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

# A separate environment: the stock clients of the Open Inference Protocol need other library versions.
.venv-clients/done: requirements/clients.txt .venv/bin/pip
	@$(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/clients.txt
	@touch $@
