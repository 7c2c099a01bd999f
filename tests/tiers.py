"""The test tier (tests/README.md): `make test`, or with SLUICE_TIER=full `make test-full`."""

from __future__ import annotations

import os

FULL = os.environ.get("SLUICE_TIER") == "full"


def examples(usual: int, full: int) -> int:
    """Return the number of examples with which a property is tested."""
    return full if FULL else usual
