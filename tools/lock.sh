#!/usr/bin/env bash
# Writes requirements.lock (what bowsprit needs) and requirements-dev.lock (what its tests need besides).
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install --quiet pip-tools
options=(--quiet --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
  --generate-hashes --allow-unsafe)
.venv/bin/pip-compile "${options[@]}" -o requirements.lock pyproject.toml
.venv/bin/pip-compile "${options[@]}" --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
