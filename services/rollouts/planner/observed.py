"""What is there, one instance at a time, as the planner is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Seen:
    """One instance as the store, the engine, the routers and the probes show it together."""

    id: str
    slot: int
    hash: str
    deployment: int
    container: Literal["none", "created", "running", "exited"]
    routed: bool = True
    """It has a port. A worker has none: ready counts as serving, and it is not drained."""
    created_at: float = 0
    started_at: float | None = None
    ready_at: float | None = None
    """Since when it has been proved ready, in this start; None while it is not."""
    admitted: bool = False
    healthy: bool = True
    unhealthy_since: float | None = None
    seated: bool = False
    """Some router knows it."""
    drained: bool = True
    auto_restart: bool = True
    """The engine brings it back when it ends: what comes with being admitted."""
    in_flight: int = 0
    leaving_at: float | None = None
    closes_at: float = 0
    """Until when new requests may still come, though no router sends any (routing.port.Seat)."""
    waits_for: str = ""
    stopping: bool = False
    cut_at: float | None = None
    died: bool = False
    """It had been started, and that start is over."""
    failure: tuple[str, str] | None = None
    """It cannot be started: reason and the engine's words."""
    died_because: str = ""
    complaint: str = ""
    """What was wrong with its last answer to a probe, or that there was none."""

    @property
    def drains_from(self) -> float:
        """When `drain_timeout` begins."""
        return max(self.leaving_at or 0, self.closes_at)

    @property
    def dead(self) -> bool:
        return self.failure is not None or self.container == "exited" or (self.died and self.container == "none")

    @property
    def serves(self) -> bool:
        """Requests go to it; a worker is ready."""
        if self.dead or self.leaving_at is not None or self.container != "running" or self.unhealthy_since is not None:
            return False
        return (self.admitted and self.healthy) if self.routed else self.ready_at is not None

    @property
    def cut(self) -> bool:
        """On this way out, not on one that it was recalled from."""
        return self.cut_at is not None and self.leaving_at is not None and self.cut_at >= self.leaving_at

    @property
    def once_served(self) -> bool:
        """In this start."""
        return self.admitted or self.unhealthy_since is not None
