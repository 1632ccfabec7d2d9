# make demo | quick | test | test-rest | test-all | check | format | integration | bench | clean   (.venv is made by itself; ARGS="..." is passed on)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CACHE ?= $(or $(LOGSTORE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/logstore)
WHEELS := $(CACHE)/wheels-$(shell cat constraints.txt pyproject.toml | cksum | cut -d' ' -f1)
PACKAGES := --constraint constraints.txt --editable ".[demo,dev]"
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Processes that share a tier: those of `test` wait most, for Kafka; a whole store is half a dozen processes itself.
PROCESSES = $(or $(JOBS),4)
test: PROCESSES = $(or $(JOBS),5)
# Bytecode is kept whatever the shell says: by the hundred the processes of the tests import the same modules.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
TIER = $(PYTEST) --numprocesses $(PROCESSES) --tier
ARGS ?=

.PHONY: help demo quick test test-rest test-all check format integration bench clean .venv
.DEFAULT_GOAL := help

help:
	@sed -n 1p Makefile

.venv: $(STAMP)

# An install that ended half-way leaves no stamp, so it is done again. Without a network uv installs from its cache, and pip, which cannot,
# from the wheels that the first install left in ours.
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv ..." >&2
	@if command -v uv >/dev/null 2>&1; then \
	  [ -x $(BIN)/python ] || uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv; \
	  uv pip install --quiet --python $(BIN)/python $(PACKAGES) || uv pip install --quiet --offline --python $(BIN)/python $(PACKAGES); \
	else \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv .venv; \
	  if [ -e "$(WHEELS)/complete" ]; then \
	    $(PIP) install --no-index --find-links "$(WHEELS)" $(PACKAGES); \
	  else \
	    $(PIP) install $(PACKAGES) && mkdir -p "$(WHEELS)" \
	    && $(PIP) wheel --wheel-dir "$(WHEELS)" --constraint constraints.txt ".[demo,dev]" hatchling editables \
	    && rm -f "$(WHEELS)"/logstore_kv-* && touch "$(WHEELS)/complete"; \
	  fi; \
	fi
	@touch $@

demo: .venv
	@$(BIN)/python -m examples.flights $(ARGS)

# Tiers (tests/support_tiers.py), each within its budget of CPU seconds, shared by PROCESSES (JOBS=2: by two).
quick: .venv
	@$(TIER) quick $(ARGS)

test: .venv
	@$(TIER) test $(ARGS)

test-rest: .venv
	@$(TIER) rest --durations 30 $(ARGS)

test-all: .venv
	@$(TIER) all --durations 30 $(ARGS)

check: .venv
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

format: .venv
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# An engine and the images are started and made where they are missing; without them the container tests fail, they are never skipped.
integration: .venv
	@docker/offline/engine.sh && docker/offline/make-images.sh && environment="$$(docker/offline/engine.sh env)" && eval "$$environment" \
	&& $(PYTEST) -m "store or containers" $(ARGS)

bench: .venv
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
