#!/usr/bin/env bash
# Demo: deployments under load. Starts the engine, the images and Sluice, then runs bench/demo.py from Sluice's image.
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
