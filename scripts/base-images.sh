#!/usr/bin/env bash
# Ensures that the two base images exist. If no registry answers, builds substitutes from Debian's archive: the same system and
# the same Python, with the certificates that this host trusts.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

bundle=/etc/ssl/certs/ca-certificates.crt

have() { docker image inspect "$1" >/dev/null 2>&1; }
pull() { timeout 120 docker pull --quiet "$1" >/dev/null 2>&1; }

# A registry that does not answer times out quickly; one that answers gets the time that a pull takes.
registry_answers() { timeout 10 docker manifest inspect debian:trixie-slim >/dev/null 2>&1; }

debian_stand_in() {
  command -v mmdebstrap >/dev/null || apt_install mmdebstrap
  say "no registry answers: building a substitute for debian:trixie-slim from Debian's archive"
  local tar place=${TMPDIR:-/tmp}
  # In memory, if there is room for a whole system: on a slow disk small files take most of the time.
  if awk '$2 == "/dev/shm" && $4 ~ /^rw/ && $4 !~ /noexec|nodev/ {found = 1} END {exit !found}' /proc/mounts \
    && [ "$(df --output=avail --block-size=1M /dev/shm | tail -n 1)" -gt 2000 ]; then
    place=/dev/shm
  fi
  tar=$(mktemp --suffix .tar)
  as_root env TMPDIR="$place" mmdebstrap --quiet --variant=minbase --dpkgopt='force-unsafe-io' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='mkdir -p "$1/etc/ssl/certs"' --customize-hook="copy-in $bundle /etc/ssl/certs" \
    trixie "$tar" >&2 || { rm -f "$tar"; die "No base image: neither a registry nor Debian's archive answers; check the network."; }
  as_root chmod 0644 "$tar"
  docker import --change 'CMD ["bash"]' --change 'LABEL sluice.made=stand-in' "$tar" debian:trixie-slim >/dev/null
  rm -f "$tar"
}

python_stand_in() {
  say "building a substitute for python:3.13-slim"
  local context
  context=$(mktemp -d)
  cp "$bundle" "$context/"
  cat >"$context/Dockerfile" <<'DOCKERFILE'
FROM debian:trixie-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends ca-certificates python3 python3-pip python3-venv >/dev/null \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \
 && ln -s /usr/bin/python3 /usr/local/bin/python
COPY ca-certificates.crt /etc/ssl/certs/
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
DOCKERFILE
  DOCKER_BUILDKIT=0 docker build --quiet --network host --label sluice.made=stand-in --tag python:3.13-slim "$context" >/dev/null 2>&1 \
    || { DOCKER_BUILDKIT=0 docker build --network host "$context" >&2 || true; rm -rf "$context"; die "python:3.13-slim could not be built; the log is above."; }
  rm -rf "$context"
}

have debian:trixie-slim && have python:3.13-slim && exit 0
if registry_answers; then
  have debian:trixie-slim || pull debian:trixie-slim || debian_stand_in
  have python:3.13-slim || pull python:3.13-slim || python_stand_in
else
  have debian:trixie-slim || debian_stand_in
  have python:3.13-slim || python_stand_in
fi
