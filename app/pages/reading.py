"""What several pages read alike."""

from __future__ import annotations

from typing import Any

from services.rollouts.phases import TERMINAL

NEWEST = 15
"""How many deployments and revisions a page lists."""


def with_running(service: dict[str, Any]) -> dict[str, Any]:
    """A service's view with `running`: its last deployment while that has not ended."""
    last = service["deployment"]
    return {**service, "running": last if last is not None and last["status"] not in TERMINAL else None}
