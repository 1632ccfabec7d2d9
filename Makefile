# make demo | test | check | integration | bench | clean        (.venv is made by itself; ARGS="..." is passed on)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ARGS ?=

.PHONY: demo test check format integration bench clean .venv
.DEFAULT_GOAL := help

help:
	@sed -n 1p Makefile

.venv: $(STAMP)

# An install that ended half-way leaves no stamp, so it is done again.
$(STAMP): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  [ -x $(BIN)/python ] || uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv; \
	  uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[demo,dev]" \
	    || uv pip install --quiet --offline --python $(BIN)/python --constraint constraints.txt --editable ".[demo,dev]"; \
	else \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[demo,dev]"; \
	fi
	@touch $@

demo: .venv
	@$(BIN)/python -m examples.flights $(ARGS)

test: .venv
	@$(BIN)/python -m pytest $(ARGS)

check: .venv
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

integration: .venv
	@$(BIN)/python -m pytest tests/integration -m integration $(ARGS)

bench: .venv
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
