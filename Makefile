# The two commands of the README are `make demo` and `make test`; the rest serves them.
# Everything Python lives in .venv; what comes from Debian is listed in deploy/packages.

SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: install install-test demo demo-down test lint bench bench-engine bench-manager proto lock clean

## install: a venv with pinned dependencies and the project in it; leaves .venv/bin/shoal
install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml hatch_build.py $(wildcard proto/shoal/v1/*.proto)
	deploy/packages run
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

proto:
	$(PY) hatch_build.py

## lock: choose the newest versions that pyproject.toml allows and pin them with their hashes
lock:
	$(VENV)/bin/uv pip compile -q pyproject.toml --group dev --generate-hashes --python-version 3.11 --no-header -o requirements.lock
