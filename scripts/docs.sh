#!/usr/bin/env bash
# The documentation as a site, in site/. Warnings are errors: a broken link, or a page that is not in the nav.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

state="$PWD $(sha256sum <requirements-docs.lock)"
if [ ! -e .venv-docs/.state ] || [ "$(cat .venv-docs/.state)" != "$state" ]; then
  say "making .venv-docs"
  rm -rf .venv-docs
  if command -v uv >/dev/null; then
    uv venv --quiet --python '>=3.11' .venv-docs
    uv pip install --quiet --python .venv-docs/bin/python --require-hashes -r requirements-docs.lock
  else
    python3 -m venv .venv-docs
    .venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements-docs.lock
  fi
  echo "$state" >.venv-docs/.state
fi
NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict
say "site/index.html"
