"""The input and the result of one reconciliation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.engine.port import ContainerView
from services.probes import ProbeSnapshot, ProbeTarget
from services.rollouts.planner.steps import Plan
from services.rollouts.reconciler.linking import UnservedLink
from services.rollouts.reconciler.operations import ExecuteStep
from services.routing.port import EndpointState, RoutedService
from services.store.tables import Instance, Revision


@dataclass(frozen=True)
class Observation:
    """The observed state of one service, and the controller's in-memory state of the service."""

    containers: Sequence[ContainerView]
    endpoint_states: Sequence[Mapping[str, EndpointState]]
    unhealthy_since: Mapping[str, float]
    published: RoutedService | None
    subnet: str
    probes: ProbeSnapshot = field(default_factory=ProbeSnapshot)
    is_linked: bool = False
    """Whether another service names this service in its `links`."""
    is_current: Callable[[str], bool] = lambda _: True
    """Whether the observation of an instance is up to date: nothing was done to the instance since."""
    watched_since: float = 0
    backoff_until: float = 0
    persistent_router_error: str | None = None
    """The error of a router that has failed an instance's operation for too long (ROUTER_ERROR_TIMEOUT)."""
    unpublished: str | None = None
    """The error of a router that has failed to publish the service for too long (ROUTER_ERROR_TIMEOUT)."""
    unserved_link: Callable[[str], UnservedLink | None] = lambda _: None
    """A function from a service's name to the reason why a link to it must wait, or None if none must."""
    log_tails: Mapping[str, str | None] = field(default_factory=dict)
    """Instance id → the end of the instance's log, once `needs_log_tail` has asked for it."""


@dataclass
class ReconcileResult:
    """The work that remains to be done outside of the transaction."""

    plan: Plan | None = None
    needs_log_tail: tuple[Instance, Revision] | None = None
    """A failed instance whose log tail must be fetched before its failure is recorded.

    Until then nothing more is planned, because the log tail is recorded with the failure of the deployment.
    """
    operations: list[ExecuteStep] = field(default_factory=list)
    activate: list[int] = field(default_factory=list)
    blocked: bool = False
    """Whether the next deployment waits for deployments of other services."""
    idle: bool = False
    """Whether no deployment is in progress, so that deployments that waited for this service may begin."""
    routed: RoutedService | None = None
    """The settings of the service that the routers must know before any instance is admitted."""
    unpublish: bool = False
    probes: list[ProbeTarget] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)
    """Ids of the instances that are not gone."""
    in_flight: dict[str, int] = field(default_factory=dict)
    draining: bool = False
    """Whether an instance is draining, so that the next reconcile must follow soon."""
    crashed_slots: list[int] = field(default_factory=list)
    """Slots whose instance died by itself, and was restarted by the engine or is replaced."""
    changed: bool = False
    """Whether the reconcile wrote anything."""
    capacity_error: str | None = None
    """The reason why no more instances can be created."""
    finished: bool = False
    """Whether the service is removed or unknown, and nothing of it is left to look after."""
    waits_for_links: bool = False
    """Whether the deployment must wait until the routers answer for services that it newly links to."""
    requeue_now: bool = False
    """Whether the writes change the next plan, so that another reconcile must follow immediately."""
