#!/usr/bin/env bash
# The quick checks, which need no engine; run them before every commit. Further arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/venv.sh
log=$(mktemp)
audited=$(mktemp)
place=$(mktemp --directory /tmp/s.XXXX) # short, as in test.sh
trap 'rm -rf "$log" "$audited" "$place"' EXIT
scripts/lint.sh >"$log" 2>&1 & lint=$!
.venv/bin/python scripts/audit.py >"$audited" 2>&1 & audit=$!

failed=0
.venv/bin/pytest --quiet --numprocesses 4 --dist loadfile -m "not docker and not browser and not slow" --basetemp "$place/t" "$@" || failed=1
wait "$lint" || failed=1
wait "$audit" || failed=1
cat "$log" "$audited" >&2
exit "$failed"
