"""What is there, one instance at a time, as the planner is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ObservedInstance:
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
    known_to_router: bool = False
    """Some router knows it."""
    drained: bool = True
    auto_restart: bool = True
    """The engine brings it back when it ends: what comes with being admitted."""
    in_flight: int = 0
    draining_since: float | None = None
    drain_not_before: float = 0
    """Until when new requests may still come, though no router sends any (routing.port.Seat)."""
    drain_blocker: str = ""
    stopping: bool = False
    force_closed_at: float | None = None
    died: bool = False
    """It had been started, and that start is over."""
    failure: tuple[str, str] | None = None
    """It cannot be started: reason and the engine's words."""
    exit_description: str = ""
    last_probe_error: str = ""
    """What was wrong with its last answer to a probe, or that there was none."""

    @property
    def drain_started_at(self) -> float:
        """When `drain_timeout` begins."""
        return max(self.draining_since or 0, self.drain_not_before)

    @property
    def dead(self) -> bool:
        return self.failure is not None or self.container == "exited" or (self.died and self.container == "none")

    @property
    def serves(self) -> bool:
        """Requests go to it; a worker is ready."""
        if self.dead or self.draining_since is not None or self.container != "running" or self.unhealthy_since is not None:
            return False
        return (self.admitted and self.healthy) if self.routed else self.ready_at is not None

    @property
    def is_force_closed(self) -> bool:
        """On this way out, not on one that it was recalled from."""
        return (
            self.force_closed_at is not None
            and self.draining_since is not None
            and self.force_closed_at >= self.draining_since
        )

    @property
    def has_served(self) -> bool:
        """In this start."""
        return self.admitted or self.unhealthy_since is not None
