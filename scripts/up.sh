#!/usr/bin/env bash
# Builds changed images, then starts or updates Sluice and its gateway as containers.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/images.sh sluice gateway
scripts/sluice up
