"""The desired state of a service, the planner's first input."""

from __future__ import annotations

from dataclasses import dataclass

from services.spec import StrategyName, resolve_count_or_percent


@dataclass(frozen=True)
class DesiredState:
    """The desired state of a service.

    Durations are in seconds, moments in seconds since the epoch.
    """

    hash: str
    replicas: int
    deployment: int | None = None
    """The running deployment; None in steady state."""
    paused: bool = False
    strategy: StrategyName = "rolling"
    max_surge: int | str = "100%"
    max_unavailable: int | str = 0
    min_ready: float = 0
    start_period: float = 60
    drain_timeout: float = 30
    stop_grace: float = 30
    deadline: float | None = None
    milestone: int | None = None
    """The highest `Progress.milestone` that the deployment had reached when `deadline` was set."""
    started_at: float = 0
    """When the deployment last began, was resumed, or began to roll back.

    A failing instance that was created before is replaced, but does not fail the deployment (again).
    """
    required_deployment: int | None = None
    """For a restart: the deployment to which an instance must belong in order to match."""
    rolled_back_deployment: int | None = None
    """For a rollback: the deployment that is rolled back, whose instances become surplus first."""
    backoff_until: float = 0
    """In steady state: the time before which no new instance is created (back-off after crashes)."""

    @property
    def surge(self) -> int:
        """The number of instances that may exist above `replicas`."""
        return 0 if self.strategy == "recreate" else resolve_count_or_percent(self.max_surge, self.replicas, up=True)

    @property
    def unavailable(self) -> int:
        """The number of `replicas` that may be unavailable.

        At least 1 if `surge` is 0, because then no instance can be started first (Kubernetes' rule).
        """
        if self.strategy == "recreate":
            return self.replicas
        return resolve_count_or_percent(self.max_unavailable, self.replicas, up=False) or int(self.surge == 0)
