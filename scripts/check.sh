#!/usr/bin/env bash
# The quick part, which needs no engine: what to run before every commit. More arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/venv.sh
quick=(.venv/bin/pytest --quiet -m "not docker and not browser and not slow" "$@")
# About half of the work, so that two cores have something to do.
half=(tests/rollouts tests/crash)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
scripts/lint.sh >"$logs/lint" 2>&1 & lint=$!
"${quick[@]}" -o cache_dir=.pytest_cache/half "${half[@]}" >"$logs/half" 2>&1 & other=$!

failed=0
"${quick[@]}" "${half[@]/#/--ignore=}" || [ $? -eq 5 ] || failed=1
wait "$other" || [ $? -eq 5 ] || failed=1
cat "$logs/half"
wait "$lint" || failed=1
cat "$logs/lint" >&2
exit "$failed"
