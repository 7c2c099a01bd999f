#!/usr/bin/env bash
# Changes and breakage at random under load, everything looked at after every act. MINUTES (10), SEED, RATE (requests a second, 40).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/engine.sh
scripts/base-images.sh
scripts/venv.sh
exec .venv/bin/python -m bench.soak --minutes "${MINUTES:-10}" --rate "${RATE:-40}" ${SEED:+--seed "$SEED"}
