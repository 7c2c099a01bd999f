#!/usr/bin/env bash
# Writes anew from pyproject.toml: requirements.lock (what Sluice runs on), requirements-dev.lock (what checks and tests it) and
# requirements-build.lock (what builds its package).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

lock() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
    --custom-compile-command scripts/lock.sh "$@"
}
lock pyproject.toml --upgrade --output-file requirements.lock
lock --group dev --upgrade --constraint requirements.lock --output-file requirements-dev.lock
echo hatchling | lock - --constraint requirements-dev.lock --output-file requirements-build.lock
