#!/usr/bin/env bash
# Removes everything that `make up` and the demos created for this SLUICE_NAME: containers, services, network, volumes, data; also
# the images, unless another Sluice uses this engine.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

docker version >/dev/null 2>&1 || die "No Docker engine answers; nothing was removed."
made_as() { docker image inspect --format '{{index .Config.Labels "sluice.made"}}' "$1" 2>/dev/null || true; }

theirs=$(docker ps --all --quiet --filter "name=^$name-their-eureka$" --filter label=sluice.made=demo)
[ -z "$theirs" ] || docker rm --force --volumes "$theirs" >/dev/null

if [ -n "$(made_as "$image")" ]; then
  scripts/sluice down --yes
else
  say "image $image not found, so no Sluice runs"
fi

[ -z "${SLUICE_KEEP_IMAGES:-}" ] || exit 0
if [ -n "$(docker ps --all --quiet --filter label=sluice.name)" ]; then
  say "another Sluice has containers on this engine; keeping the images"
  exit 0
fi
remove() {
  [ "$(made_as "$1")" = "$2" ] || return 0
  if docker image rm "$1" >/dev/null 2>&1; then echo "removed image $1"; else say "keeping image $1: it is in use"; fi
}
for tag in "sluice:$version" "sluice-gateway:$version" hello:1 hello:2 hello:broken \
  sample-discovery:1 sample-gateway:1 sample-service:1 sample-service:2; do remove "$tag" image; done
docker image prune --force --filter label=sluice.made=image >/dev/null
for tag in python:3.13-slim debian:trixie-slim; do remove "$tag" stand-in; done
