#!/usr/bin/env bash
# Builds what has changed, then starts Sluice and its gateway as containers, or brings them up to date.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/images.sh sluice gateway
scripts/sluice up
