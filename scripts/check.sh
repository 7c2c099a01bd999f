#!/usr/bin/env bash
# The quick part, which needs no engine: what to run before every commit. More arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/venv.sh
scripts/lint.sh
exec .venv/bin/pytest --quiet -m "not docker and not browser and not slow" "$@"
