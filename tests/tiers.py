"""The tier that runs (tests/README.md): `make test`, or with SLUICE_TIER=full `make test-full`."""

from __future__ import annotations

import os

FULL = os.environ.get("SLUICE_TIER") == "full"


def examples(usual: int, full: int) -> int:
    """How many examples a property is tried with."""
    return full if FULL else usual
