#!/usr/bin/env bash
# Random changes and faults under load, with all invariants checked after each. MINUTES (10), SEED, RATE (requests per second, 40).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/engine.sh
scripts/base-images.sh
scripts/venv.sh
exec .venv/bin/python -m bench.soak --minutes "${MINUTES:-10}" --rate "${RATE:-40}" ${SEED:+--seed "$SEED"}
