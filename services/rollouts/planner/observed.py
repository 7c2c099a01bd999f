"""The observed state of one instance; a list of these is the planner's second input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ObservedInstance:
    """The observed state of one instance, combined from the store, the engine, the routers and the probes.

    Moments are in seconds since the epoch.
    """

    id: str
    slot: int
    hash: str
    deployment: int
    container: Literal["none", "created", "running", "exited"]
    routed: bool = True
    """Whether the instance has a port.

    An instance without a port is a worker. A worker serves as soon as it is ready, and is not drained.
    """
    created_at: float = 0
    started_at: float | None = None
    ready_at: float | None = None
    """Since when the present start of the instance has been ready; None while the instance is not ready."""
    admitted: bool = False
    healthy: bool = True
    unhealthy_since: float | None = None
    unhealthy_reason: str = ""
    """Why the instance is unhealthy, as a clause for people."""
    lost: str = ""
    """How the running instance lost its address in Sluice's network, as a clause for people; empty if it has the address.

    Such an instance has failed, because no request can reach it again.
    """
    known_to_router: bool = False
    """Whether at least one router knows the instance."""
    drained: bool = True
    auto_restart: bool = True
    """Whether the engine restarts the container when that ends; enabled when the instance is admitted."""
    in_flight: int = 0
    draining_since: float | None = None
    drain_not_before: float = 0
    """Until when new requests may still arrive although no router sends any.

    See `routing.port.EndpointState`.
    """
    drain_blocker: str = ""
    stopping: bool = False
    force_closed_at: float | None = None
    died: bool = False
    """Whether a start of the instance has ended."""
    failure: tuple[str, str] | None = None
    """Reason and message (the engine's, for example) if the instance cannot be started."""
    exit_description: str = ""
    last_probe_error: str = ""
    """The error of the instance's last probe: a wrong answer, or no answer; empty if there was none."""

    @property
    def drain_started_at(self) -> float:
        """The time from which `drain_timeout` counts."""
        return max(self.draining_since or 0, self.drain_not_before)

    @property
    def dead(self) -> bool:
        return self.failure is not None or self.container == "exited" or (self.died and self.container == "none")

    @property
    def failed(self) -> bool:
        """Whether the instance can never serve again, so that it is replaced immediately."""
        return self.dead or (bool(self.lost) and self.container == "running")

    @property
    def serves(self) -> bool:
        """Whether the instance gets requests, or, for a worker, is ready."""
        if self.failed or self.draining_since is not None or self.container != "running" or self.unhealthy_since is not None:
            return False
        return (self.admitted and self.healthy) if self.routed else self.ready_at is not None

    @property
    def is_force_closed(self) -> bool:
        """Whether the instance was force-closed in its present drain.

        A force-close in an earlier drain, which a recall ended, does not count.
        """
        return (
            self.force_closed_at is not None
            and self.draining_since is not None
            and self.force_closed_at >= self.draining_since
        )

    @property
    def has_served(self) -> bool:
        """Whether the instance has served in its present start."""
        return self.admitted or self.unhealthy_since is not None
