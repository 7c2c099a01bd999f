#!/usr/bin/env bash
# Makes .venv with all that Sluice needs to run, be checked and be tested, exactly as locked. Does nothing when it is up to date.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

locks=(requirements.lock requirements-dev.lock)
state="$PWD $(cat "${locks[@]}" | sha256sum)"
[ -e .venv/.state ] && [ "$(cat .venv/.state)" = "$state" ] && exit 0

# Prints the newest Python of 3.11 or later that can make a virtual environment.
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

say "making .venv"
# One that was made elsewhere, or not to its end, is made anew; an older one only gets what changed.
[ -e .venv/.state ] && grep -qF "$PWD " .venv/.state || rm -rf .venv
if command -v uv >/dev/null; then
  [ -d .venv ] || uv venv --quiet --python '>=3.11' .venv
  uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock -r requirements-dev.lock
  uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
else
  if [ ! -d .venv ]; then
    find_python >/dev/null || apt_install python3 python3-venv
    python=$(find_python) || die "Sluice needs Python 3.11 or later, or uv."
    "$python" -m venv .venv
  fi
  .venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock
  .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
fi
echo "$state" >.venv/.state
