#!/usr/bin/env bash
# Prints the variables with which a shell reaches this SLUICE_NAME: eval "$(make -s env)".
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[ "$(docker inspect --format '{{index .Config.Labels "sluice.name"}}' "$name" 2>/dev/null)" = "$name" ] \
  || die "Sluice \"$name\" is not running; start it with: make up"
# shellcheck disable=SC2016  # the container's own variables
docker exec "$name" sh -ec 'token=$(cat "$SLUICE_DATA/admin.token")
echo "export SLUICE_URL=http://127.0.0.1:$SLUICE_PORT SLUICE_TOKEN=$token SLUICE_GATEWAY=http://127.0.0.1:$SLUICE_GATEWAY_PORT"'
