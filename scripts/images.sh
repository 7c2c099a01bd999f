#!/usr/bin/env bash
# Builds the named images: sluice, gateway, hello (versions 1, 2 and broken of the sample), spring (the three of samples/spring).
# Without names: all but spring.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[ "$#" -gt 0 ] || set -- sluice gateway hello
docker version >/dev/null 2>&1 || die "No Docker engine answers; install one with \"make demo\" or scripts/engine.sh."
scripts/base-images.sh

builder=0
docker buildx version >/dev/null 2>&1 && builder=1

build() {
  local tag=$1 log
  shift
  log=$(mktemp)
  # The host's network: package indexes are reached as from this host.
  if ! DOCKER_BUILDKIT=$builder docker build --network host --label sluice.made=image --tag "$tag" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "Image $tag could not be built; the log is above."
  fi
  rm -f "$log"
}

jobs=()
say "building $*"
for wanted; do
  case $wanted in
    sluice) build "sluice:$version" . & ;;
    gateway) build "sluice-gateway:$version" services/gateway & ;;
    hello)
      {
        build hello:1 --build-arg VERSION=1 samples/hello
        build hello:2 --build-arg VERSION=2 samples/hello
        build hello:broken --build-arg VERSION=broken --build-arg EXIT_AT_START=1 samples/hello
      } & ;;
    spring)
      {
        scripts/spring-jars.sh
        build sample-discovery:1 --build-arg MODULE=discovery samples/spring
        build sample-gateway:1 --build-arg MODULE=gateway samples/spring
        build sample-service:1 --build-arg MODULE=service --build-arg VERSION=1 samples/spring
        build sample-service:2 --build-arg MODULE=service --build-arg VERSION=2 samples/spring
      } & ;;
    *) die "Unknown image $wanted; known: sluice, gateway, hello, spring." ;;
  esac
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
