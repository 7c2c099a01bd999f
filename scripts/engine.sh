#!/usr/bin/env bash
# Ensures that a Docker engine answers. A running engine is not changed; if there is none, Debian's is installed and started.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

if command -v docker >/dev/null && answers; then
  exit 0
fi
[ -z "${DOCKER_HOST:-}" ] || die "No Docker engine answers at DOCKER_HOST=$DOCKER_HOST."
command -v dockerd >/dev/null && command -v docker >/dev/null || apt_install docker.io iptables ca-certificates
if [ -d /run/systemd/system ]; then
  as_root systemctl start docker || true
fi
if answers; then
  exit 0
fi

log=/var/log/sluice-dockerd.log
say "starting the Docker engine (its log: $log)"
as_root sh -c "setsid dockerd >>$log 2>&1 </dev/null &"
deadline=$((SECONDS + 60))
until answers; do
  if [ "$SECONDS" -ge "$deadline" ]; then
    as_root tail -n 20 "$log" >&2
    die "The Docker engine does not answer after 60 s."
  fi
  sleep 0.2
done
