#!/usr/bin/env bash
# From nothing to a deployment under load: the engine, the images, Sluice, then bench/demo.py, run from Sluice's image.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/engine.sh
scripts/images.sh sluice gateway hello
export SLUICE_DEFAULT_ROUTE=${SLUICE_DEFAULT_ROUTE-/{name\}}
scripts/sluice up
eval "$(scripts/env.sh)"
export SLUICE_URL SLUICE_TOKEN SLUICE_GATEWAY
options=(--rm --network host --env SLUICE_URL --env SLUICE_TOKEN --env SLUICE_GATEWAY --env SLUICE_NAME="$name"
  --env TERM="${TERM:-dumb}" --env COLUMNS="${COLUMNS:-}" --entrypoint python)
[ -t 0 ] && [ -t 1 ] && options+=(--interactive --tty)
exec docker run "${options[@]}" "$image" -m bench.demo
