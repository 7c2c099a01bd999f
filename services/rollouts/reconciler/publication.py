"""The settings of a service that the routers need, and the operation that gives them to the routers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import next_arrival
from services.rollouts.reconciler.observation import Observation
from services.rollouts.reconciler.operations import Publish, Unpublish
from services.rollouts.state.planner_inputs import desired_state
from services.rollouts.state.routing_config import active_revision, is_published, routed_service
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.rollouts.state.status import Kind, Status
from services.routing.port import RoutedService


@dataclass(frozen=True)
class Publication:
    """The settings that the routers must know before any instance is admitted, and those that they know."""

    routed: RoutedService | None
    published: RoutedService | None
    operation: Publish | Unpublish | None
    requeue_at: float | None = None
    """When time alone changes the settings, in seconds since the epoch."""

    @property
    def operations(self) -> tuple[Publish | Unpublish, ...]:
        """The operation as a tuple, which is empty if the routers are current."""
        return (self.operation,) if self.operation is not None else ()

    @property
    def is_confirmed(self) -> bool:
        """Whether the routers know the service as required, so that instances may be admitted."""
        return is_published(self.routed, self.published)

    @property
    def is_removal(self) -> bool:
        return isinstance(self.operation, Unpublish)


def plan_publication(
    snapshot: ServiceSnapshot, observed: Sequence[ObservedInstance], observation: Observation, now: float
) -> Publication:
    """Return the publication that the routers need now."""
    routed, published = _routed(snapshot, observed, observation), observation.published
    requeue_at = None
    if routed is not None and routed is not published:
        # Requests wait for an instance only while one may come in time.
        begins = next_arrival(desired_state(snapshot, observation.backoff_until), observed) - routed.queue_timeout
        if now < begins:
            routed = replace(routed, queue_timeout=0)
            requeue_at = begins if begins < math.inf else None
    operation: Publish | Unpublish | None = None
    if routed is not None and routed != published:
        operation = Publish(routed)
    elif routed is None and published is not None and all(row.port is None for row in snapshot.instances):
        operation = Unpublish(snapshot.service.name)
    return Publication(routed, published, operation, requeue_at)


def _routed(
    snapshot: ServiceSnapshot, observed: Sequence[ObservedInstance], observation: Observation
) -> RoutedService | None:
    deployment = snapshot.deployment
    if deployment is not None and deployment.kind == Kind.REMOVE:
        if not snapshot.instances:
            return None
        if deployment.status != Status.ROLLING_BACK:
            return observation.published  # a removal needs no new router settings, which might be impossible to apply
    revision = active_revision(snapshot, observed)
    return routed_service(snapshot.service, revision, observation.is_linked) if revision is not None else None
