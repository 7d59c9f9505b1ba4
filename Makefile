# Two commands do everything on a fresh machine: `make run` and `make test`. Neither needs sudo.
#
# Interpreters: the newest of 3.13, 3.12, 3.11 that really runs (a pyenv shim may exist and fail), on PATH, then under
# ~/.pyenv/versions; none at all: uv fetches one. uv itself comes from pip into .uv/ when it is not there.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

find_python = for v in $(1); do for p in $$(command -v python$$v || true) $$(ls -d $$HOME/.pyenv/versions/$$v.*/bin/python$$v 2>/dev/null | sort -rV || true); do \
	"$$p" -c 'import sys' >/dev/null 2>&1 && { "$$p" -c 'import sys; print(sys.executable)'; exit 0; }; done; done; echo $(2)

PYTHON ?= $(shell $(call find_python,3.13 3.12 3.11,3.13))
# mitmproxy resolves on 3.13 only.
MITM_PYTHON ?= $(shell $(call find_python,3.13,3.13))
OLDEST ?= $(shell $(call find_python,3.11 3.12 3.13,3.11))
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

# The price table is read from the installed package, not from the network.
export LITELLM_LOCAL_MODEL_COST_MAP := True
export UV_PROJECT_ENVIRONMENT := .venv

.PHONY: help run test lint bench setup setup-run clean
help:
	@echo "make run    set up the gateway and start it on http://127.0.0.1:4000 (demo mode without KIMI_TOKEN)"
	@echo "make test   set up everything and run every test"
	@echo "make lint   ruff, mypy --strict, import-linter"
	@echo "make setup  set up everything, run nothing;  make clean  remove what was set up"

.uv/bin/uv:
	@echo "==> installing uv into .uv/"
	@for p in python3 $(PYTHON) $(OLDEST); do "$$p" -m venv .uv >/dev/null 2>&1 && break; done
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

setup-run: $(filter .uv/bin/uv,$(UV))
	@echo "==> setting up .venv with $(PYTHON)"
	@$(UV) sync --locked --inexact --extra proxy --python "$(PYTHON)"

run: setup-run
	@.venv/bin/kimi-provider serve $(ARGS)

setup: $(filter .uv/bin/uv,$(UV))
	@echo "==> setting up .venv with $(PYTHON)"
	@$(UV) sync --locked --extra proxy --extra postgres --group dev --python "$(PYTHON)"
	@echo "==> setting up .venv-mitm with $(MITM_PYTHON)"
	@UV_PROJECT_ENVIRONMENT=.venv-mitm $(UV) sync --locked --only-group mitm-dev --python "$(MITM_PYTHON)"
	@$(UV) pip install --quiet --python .venv-mitm --no-deps -e .

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Three environments: the oldest supported Python, the redirector's (it can't share one with litellm), and the gateway's,
# whose summary closes the output.
test: setup
	@echo "==> setting up .venv-oldest with $(OLDEST)"
	@UV_PROJECT_ENVIRONMENT=.venv-oldest $(UV) sync --locked --extra proxy --group dev --python "$(OLDEST)"
	.venv-oldest/bin/python -m pytest tests/smoke -q
	.venv-mitm/bin/python -m pytest -c tests/mitm/pytest.ini tests/mitm -q
	.venv/bin/python -m pytest -n 2 --dist loadfile

bench: setup
	.venv/bin/python -m bench $(ARGS)

clean:
	rm -rf .venv .venv-oldest .venv-mitm .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
