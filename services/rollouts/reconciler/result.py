"""The result of one reconciliation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.probes import ProbeTarget
from services.rollouts.planner.steps import Step
from services.rollouts.reconciler.operations import Operation


@dataclass(frozen=True)
class ReconcileStatus:
    """The volatile status of a service after a reconciliation, published after the commit."""

    instances: tuple[str, ...] = ()
    """Ids of the instances that are not gone."""
    probes: tuple[ProbeTarget, ...] = ()
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Instance id → result of the engine's last check, in the form of a probe."""
    warnings: tuple[dict[str, str], ...] = ()
    """The standing warnings about the service's instances: `code` and `message` of each."""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    draining: bool = False
    """Whether an instance is draining, so that the next reconcile must follow soon."""
    changed: bool = False
    """Whether the reconciliation wrote anything."""
    routers_current: bool = False
    """Whether the routers have the settings of the service, so that no publication is needed."""
    blocked: bool = False
    """Whether the next deployment waits for deployments of other services."""
    idle: bool = False
    """Whether no deployment is in progress, so that deployments that waited for this service may begin."""
    awaited_links: frozenset[str] = frozenset()
    """Services that the deployment newly links to, and for which the routers do not answer by name yet."""


@dataclass(frozen=True)
class ReconcileResult:
    """The work that remains to be done outside of the transaction."""

    operations: tuple[Operation, ...] = ()
    status: ReconcileStatus = field(default_factory=ReconcileStatus)
    requeue_after: float | None = None
    """Seconds after which time alone changes the plan; 0 if the writes did, None if nothing does."""
    crashes: tuple[int, ...] = ()
    """Slots whose instance died by itself, and was restarted by the engine or is replaced."""
    steps: tuple[Step, ...] = ()
    """The steps of the plan, written or with an operation."""
    concluded: bool = False
    """Whether the writes followed from an outcome of the plan."""
    finished: bool = False
    """Whether the service is removed or unknown, and nothing of it is left to look after."""
