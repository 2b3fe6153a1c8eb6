# make up      a running embedded cluster, kubectl switched to it
# make test    lint, types, the layer contract and all tests
# Everything installs itself; every target can be run again.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m bowsprit
.PHONY: install install-dev system system-test up down test lint types contract unit bench lock clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	./tools/venv.sh $(PYTHON) $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@

system:
	./tools/system.sh kubectl

system-test:
	./tools/system.sh test

up: install system
	$(RUN) up

down: install
	$(RUN) down

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

contract: install-dev
	$(BIN)/lint-imports

unit: install-dev system-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test: lint types contract unit

bench: install-dev system-test
	$(BIN)/python -m bench

lock: $(VENV)/bin/python
	./tools/lock.sh

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
