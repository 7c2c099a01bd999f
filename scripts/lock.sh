#!/usr/bin/env bash
# Rewrites the lock files from pyproject.toml: requirements.lock (run time), requirements-dev.lock (checks and tests),
# requirements-build.lock (package build) and requirements-docs.lock (the documentation's site).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

lock() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
    --custom-compile-command scripts/lock.sh "$@"
}
lock pyproject.toml --upgrade --output-file requirements.lock
lock --group dev --upgrade --constraint requirements.lock --output-file requirements-dev.lock
echo hatchling | lock - --constraint requirements-dev.lock --output-file requirements-build.lock
echo mkdocs-material | lock - --upgrade --output-file requirements-docs.lock
