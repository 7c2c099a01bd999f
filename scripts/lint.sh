#!/usr/bin/env bash
# Style, format, types and import rules.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

say "lint, format, types, import rules"
bin=$PWD/.venv/bin
"$bin/ruff" check --quiet .
"$bin/ruff" format --check --quiet . || { "$bin/ruff" format --check .; exit 1; }
"$bin/mypy" --no-error-summary
(cd samples/hello && "$bin/mypy" --no-error-summary --strict --cache-dir ../../.mypy_cache/hello .)
imports=$("$bin/lint-imports" 2>&1) || { echo "$imports"; exit 1; }
