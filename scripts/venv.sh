#!/usr/bin/env bash
# Creates .venv with the locked packages for running, checking and testing Sluice. Does nothing if it is up to date.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

locks=(requirements.lock requirements-dev.lock)
state="$PWD $(cat "${locks[@]}" | sha256sum)"
[ -e .venv/.state ] && [ "$(cat .venv/.state)" = "$state" ] && exit 0

# Prints the newest Python from 3.11 that can create a virtual environment.
find_python() {
  local python
  for python in python3.14 python3.13 python3.12 python3.11 python3; do
    if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
  return 1
}

say "creating .venv"
# A .venv from elsewhere or from an interrupted run is created again; an older one is updated.
[ -e .venv/.state ] && grep -qF "$PWD " .venv/.state || rm -rf .venv
if command -v uv >/dev/null; then
  [ -d .venv ] || uv venv --quiet --python '>=3.11' .venv
  uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock -r requirements-dev.lock
  uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
else
  if [ ! -d .venv ]; then
    find_python >/dev/null || apt_install python3 python3-venv
    python=$(find_python) || die "No suitable Python found; install Python 3.11 or later, or uv."
    "$python" -m venv .venv
  fi
  .venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock
  .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
fi
echo "$state" >.venv/.state
