#!/usr/bin/env bash
# The test suite with real components: installs what it needs, lints, then runs the tests of a tier (tests/README.md). Further
# arguments go to pytest. SLUICE_TIER=full: every test, with more random histories.
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
# Three processes: most tests wait for engines, gateways and browsers. A short directory: a socket's path has at most 107 bytes.
place=$(mktemp --directory /tmp/s.XXXX)
trap 'rm -rf "$place" || true' EXIT
.venv/bin/pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder --durations 40 --basetemp "$place/t" "${tier[@]}" "$@"
