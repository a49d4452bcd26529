# One page of commands. `make` alone prints them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that runs and is new enough; `make install PYTHON=/usr/bin/python3.12` names another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
RUNTIME := .venv/.installed
DEV := .venv/.installed-dev

# What pip says, in a few lines: a count while it collects, the large downloads, and that it unpacks.
define TELL
{ n=0; while read -r line; do \
	if [[ $$line =~ ^(Collecting|Processing) ]]; then n=$$((n + 1)); ((n % 25)) || echo "  $$n packages found"; \
	elif [[ $$line =~ ^Downloading\ ([A-Za-z0-9_.]+)-.*\(([0-9]{3,}(\.[0-9]+)?\ MB|[0-9.]+\ GB) ]]; then \
		echo "  downloading $${BASH_REMATCH[1]}, $${BASH_REMATCH[2]}"; \
	elif [[ $$line == "Installing collected"* ]]; then echo "  unpacking $$n packages"; fi; done; }
endef

.PHONY: help
help: ## print this page
	@echo "The nightly risk job. A virtual environment is made in .venv when it is first needed."
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | while IFS= read -r line; do \
		printf '  make %-12s %s\n' "$${line%%:*}" "$${line##*## }"; done

# ---- the environment: a stamp is the last thing written, so an interrupted install starts again ---------------------
$(RUNTIME): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name one: make $(MAKECMDGOALS) PYTHON=/usr/bin/python3.11" >&2; exit 2; }
	@echo "Installing the runtime into .venv (about 2 minutes, more where torch must be downloaded with CUDA)"
	@test -f $@ || "$(PYTHON)" -m venv --clear .venv
	@rm -f $@ $(DEV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt | $(TELL)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	@echo "Installing the tools of the tests and checks (under a minute)"
	@rm -f $@
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements-dev.txt | $(TELL)
	@$(BIN)/python -m pip check
	@touch $@

.PHONY: install
install: $(DEV) ## make .venv with everything pinned: runtime, tests, checks

# ---- the system -----------------------------------------------------------------------------------------------------
.PHONY: run up down backfill train
run: $(RUNTIME) ## one night: PostgreSQL, Airflow, the last session, the result on the terminal (SESSION=2022-12-28 for another)
	@$(BIN)/python -m risk.system run $(if $(SESSION),--session "$(SESSION)")

up: $(RUNTIME) ## the same system, staying up, with Airflow's UI on http://127.0.0.1:8080
	@$(BIN)/python -m risk.system up

down: ## end what `make up` started; no process stays
	@if test -f $(RUNTIME); then $(BIN)/python -m risk.system down; else echo "Nothing is installed, so nothing runs"; fi

.PHONY: range
range:
	@test -n "$(FROM)" -a -n "$(TO)" || { echo "Say which sessions: make backfill FROM=2022-11-21 TO=2022-12-02" >&2; exit 2; }

backfill: range $(RUNTIME) ## every session of a range: make backfill FROM=2022-11-21 TO=2022-12-02
	@$(BIN)/python -m risk.system backfill "$(FROM)" "$(TO)"

train: $(RUNTIME) ## train the yearly vintages again, 2000 to 2022 (about 2 minutes)
	@$(BIN)/python -m risk.model.train

# ---- the house ------------------------------------------------------------------------------------------------------
.PHONY: check fmt test test-gpu test-slow clean
check: $(DEV) ## style, formatting, types, who imports whom, the compose file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml

fmt: $(DEV) ## mend style and formatting where a tool can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: $(DEV) ## every test but those for a GPU and the slow ones, with branch coverage (at least 90%)
	@$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

test-gpu: $(DEV) ## the tests that need a CUDA device
	@$(BIN)/python -m pytest -m gpu tests/batch_inference/test_gpu_engine.py

test-slow: $(DEV) ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

.PHONY: bench-night
bench-night: $(RUNTIME) ## one night and a fortnight's backfill beside empty tasks; writes benchmarks/results/night.json
	@$(BIN)/python benchmarks/night.py

clean: down ## remove .venv and the tools' caches; what is published stays, in .state
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@find include plugins -name '*.egg-info' -type d -prune -exec rm -rf {} +
	@if test -d .state/postgres; then echo "Kept .state, with everything published; to lose it as well: rm -rf .state"; fi
