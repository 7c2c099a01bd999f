#!/usr/bin/env bash
# Removes all that `make up` and the demos made for this SLUICE_NAME: containers, services, network, volumes, data; and the images, when
# nothing of another Sluice stands on this engine.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

docker version >/dev/null 2>&1 || die "No Docker engine answers: there is nothing that could be removed."
made_as() { docker image inspect --format '{{index .Config.Labels "sluice.made"}}' "$1" 2>/dev/null || true; }

theirs=$(docker ps --all --quiet --filter "name=^$name-their-eureka$" --filter label=sluice.made=demo)
[ -z "$theirs" ] || docker rm --force --volumes "$theirs" >/dev/null

if [ -n "$(made_as "$image")" ]; then
  scripts/sluice down --yes
else
  say "$image is not there, so nothing of it runs"
fi

[ -z "${SLUICE_KEEP_IMAGES:-}" ] || exit 0
if [ -n "$(docker ps --all --quiet --filter label=sluice.name)" ]; then
  say "another Sluice, or what it left running, stands on this engine: the images stay"
  exit 0
fi
remove() {
  [ "$(made_as "$1")" = "$2" ] || return 0
  if docker image rm "$1" >/dev/null 2>&1; then echo "removed image $1"; else say "image $1 stays: something still uses it"; fi
}
for tag in "sluice:$version" "sluice-gateway:$version" hello:1 hello:2 hello:broken \
  sample-discovery:1 sample-gateway:1 sample-service:1 sample-service:2; do remove "$tag" image; done
docker image prune --force --filter label=sluice.made=image >/dev/null
for tag in python:3.13-slim debian:trixie-slim; do remove "$tag" stand-in; done
