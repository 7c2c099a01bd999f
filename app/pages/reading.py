"""What several pages read alike."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from app.sluice import Sluice
from services.rollouts.phases import TERMINAL

NEWEST = 15
"""How many deployments and revisions a page lists."""


def with_running(service: dict[str, Any]) -> dict[str, Any]:
    """A service's view with `running`: its last deployment while that has not ended."""
    last = service["deployment"]
    return {**service, "running": last if last is not None and last["status"] not in TERMINAL else None}


def stamp_of(sluice: Sluice, service: str | None) -> Hashable:
    """What differs when a page about this service may: every change of a row has its event, the rest is live."""
    live, own = sluice.live, f"{service}-r"
    busy = [(id, count) for id, count in live.in_flight.items() if id.startswith(own)]
    probes = [(id, probe.get("ok"), probe.get("error")) for id, probe in live.probes.items() if id.startswith(own)]
    return sluice.drawings.news.of(service), str(busy), str(probes), str(live.warnings.get(service or ""))
