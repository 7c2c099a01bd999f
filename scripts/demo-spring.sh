#!/usr/bin/env bash
# Demo: Spring Boot redeployed behind Spring Cloud Gateway under load. Starts the engine, the images, Sluice and a stock external
# Eureka server, then runs bench/demo_spring.py from Sluice's image.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/engine.sh
scripts/images.sh sluice gateway spring
export SLUICE_EUREKA_ALIASES=${SLUICE_EUREKA_ALIASES-sample-eureka}
scripts/sluice up
eval "$(scripts/env.sh)"
export SLUICE_URL SLUICE_TOKEN SLUICE_GATEWAY

# The external server's container, in the network in which instances reach it.
theirs=$name-their-eureka
if docker inspect "$theirs" >/dev/null 2>&1; then
  docker start "$theirs" >/dev/null
else
  say "starting $theirs, a stock Eureka server"
  docker run --detach --name "$theirs" --network "$name" --label sluice.made=demo --env SERVER_PORT=8761 sample-discovery:1 >/dev/null
fi
ip=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$theirs")
export THEIR_EUREKA=http://$ip:8761/eureka/

options=(--rm --network host --env SLUICE_URL --env SLUICE_TOKEN --env SLUICE_NAME="$name" --env THEIR_EUREKA
  --env TERM="${TERM:-dumb}" --env COLUMNS="${COLUMNS:-}" --entrypoint python)
[ -t 0 ] && [ -t 1 ] && options+=(--interactive --tty)
exec docker run "${options[@]}" "$image" -m bench.demo_spring
