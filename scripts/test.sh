#!/usr/bin/env bash
# The suite on real parts: sets up what it needs, checks, then runs the tests of a tier (tests/README.md). More arguments go to
# pytest. SLUICE_TIER=full: every test, with every history.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/engine.sh
scripts/venv.sh
scripts/images.sh sluice gateway hello spring
command -v chromium >/dev/null || apt_install chromium
command -v npm >/dev/null || apt_install nodejs npm
command -v go >/dev/null || apt_install golang-go
scripts/lint.sh
tier=(-m "not full")
[ "${SLUICE_TIER:-}" != full ] || tier=()
# Three at a time: most of the suite waits for engines, gateways and browsers. In a short place: a socket's path has 107 characters.
place=$(mktemp --directory /tmp/s.XXXX)
trap 'rm -rf "$place" || true' EXIT
.venv/bin/pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder --durations 40 --basetemp "$place/t" "${tier[@]}" "$@"
