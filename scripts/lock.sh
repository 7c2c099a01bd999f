#!/usr/bin/env bash
# Writes requirements.lock (what Sluice runs on) and requirements-dev.lock (what checks and tests it) anew from pyproject.toml.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

lock() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
    --custom-compile-command scripts/lock.sh "$@"
}
lock pyproject.toml --upgrade --output-file requirements.lock
lock --group dev --upgrade --constraint requirements.lock --output-file requirements-dev.lock
