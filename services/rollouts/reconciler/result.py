"""The input and the result of one reconciliation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.engine.port import ContainerView
from services.probes import ProbeTarget
from services.rollouts.planner.steps import Plan
from services.rollouts.reconciler.executor import Operation
from services.rollouts.reconciler.linking import UnservedLink
from services.routing.port import EndpointState, RoutedService
from services.store.tables import Instance, Revision


@dataclass(frozen=True)
class Observation:
    """What was observed of one service, and what the loop remembers of it."""

    containers: Sequence[ContainerView]
    endpoint_states: Sequence[Mapping[str, EndpointState]]
    unhealthy_since: Mapping[str, float]
    published: RoutedService | None
    subnet: str
    is_linked: bool = False
    """Some other service names it in its `links`."""
    is_current: Callable[[str], bool] = lambda _: True
    """Whether what was seen of an instance still holds: nothing was done to it since."""
    watched_since: float = 0
    backoff_until: float = 0
    persistent_router_error: str | None = None
    """Why the routers have not done what they were asked for of an instance, when that has been so for long."""
    unpublished: str | None = None
    """The same of the service itself."""
    unserved_link: Callable[[str], UnservedLink | None] = lambda _: None
    """What a link to this service waits for; None when nothing."""
    log_tails: Mapping[str, str | None] = field(default_factory=dict)
    """The end of the log of those that were unheard."""


@dataclass
class ReconcileResult:
    """What is to be done outside of the transaction."""

    plan: Plan | None = None
    needs_log_tail: tuple[Instance, Revision] | None = None
    """One that fails the deployment: nothing more is decided until the end of its log has been read, to be told with it."""
    operations: list[Operation] = field(default_factory=list)
    activate: list[int] = field(default_factory=list)
    blocked: bool = False
    """What would begin waits for deployments of other services."""
    idle: bool = False
    """No deployment is under way: what others waited for has come to its end."""
    routed: RoutedService | None = None
    """What the routers must know of the service before anything is admitted."""
    unpublish: bool = False
    probes: list[ProbeTarget] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)
    """Those that have not gone."""
    in_flight: dict[str, int] = field(default_factory=dict)
    draining: bool = False
    """Something is being drained: time to look again soon."""
    crashed_slots: list[int] = field(default_factory=list)
    """Slots whose instance died by itself, whether the engine started it again or it is replaced."""
    changed: bool = False
    """Something was written."""
    capacity_error: str | None = None
    """Why no more instances can be made."""
    finished: bool = False
    """The service is removed or not known, and nothing of it is left to look after."""
    waits_for_links: bool = False
    """It is not done before the routers answer for services that it newly links to."""
    requeue_now: bool = False
    """What was written changes what comes next: time for another turn at once."""
