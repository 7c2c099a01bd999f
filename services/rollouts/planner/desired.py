"""Where a service is to go, as the planner is told."""

from __future__ import annotations

from dataclasses import dataclass

from services.spec import count_of


@dataclass(frozen=True)
class DesiredState:
    """Where a service is to go. Times in seconds."""

    hash: str
    replicas: int
    deployment: int | None = None
    """The running deployment; None in steady state."""
    paused: bool = False
    recreate: bool = False
    max_surge: int | str = "100%"
    max_unavailable: int | str = 0
    min_ready: float = 0
    start_period: float = 60
    drain_timeout: float = 30
    stop_grace: float = 30
    deadline: float | None = None
    milestone: int | None = None
    """How far it had come at most (Progress.milestone) when the deadline was set."""
    started_at: float = 0
    """When the deployment last set out: began, went on, or turned back. What was born before and fails is replaced; it does
    not fail the deployment (again)."""
    required_deployment: int | None = None
    """A restart: only instances of this deployment are what is wanted."""
    rolled_back_deployment: int | None = None
    """Going back: instances of this deployment are the first that are too many."""
    backoff_until: float = 0
    """Steady state: no new instance before (back-off after deaths)."""

    @property
    def surge(self) -> int:
        """How many more than `replicas` there may be."""
        return 0 if self.recreate else count_of(self.max_surge, self.replicas, up=True)

    @property
    def unavailable(self) -> int:
        """How many of `replicas` may be missed; at least one when nothing may be started first (Kubernetes' rule)."""
        if self.recreate:
            return self.replicas
        return count_of(self.max_unavailable, self.replicas, up=False) or int(self.surge == 0)
