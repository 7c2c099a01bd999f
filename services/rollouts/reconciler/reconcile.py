"""The reconciliation of one service in one transaction.

Record the observation, plan, write the rows, and return the operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlmodel import Session

from services.rollouts.planner import planner
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.steps import Failed, MarkDraining, Plan, Recall
from services.rollouts.reconciler.deployment_writes import write_deployment
from services.rollouts.reconciler.observation import Observation
from services.rollouts.reconciler.observed_status import record_container_status, record_health, record_serving
from services.rollouts.reconciler.operations import Activate, FetchLogTail
from services.rollouts.reconciler.publication import plan_publication
from services.rollouts.reconciler.result import ReconcileResult, ReconcileStatus
from services.rollouts.reconciler.route_continuity import preserve_routes
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.reconciler.step_writes import plan_reconnections, write_steps
from services.rollouts.state.dependencies import is_blocked
from services.rollouts.state.instance_health import last_check, unhealthy_instances, warnings
from services.rollouts.state.planner_inputs import desired_state, observe_instances, probe_targets
from services.rollouts.state.queue import next_pending
from services.rollouts.state.recognition import recognized
from services.rollouts.state.service_snapshot import ServiceSnapshot, load_service
from services.rollouts.state.transitions import StateWriter

MIN_REQUEUE = 0.01
"""Seconds between a reconcile and the next one that time alone causes."""


def reconcile_service(session: Session, name: str, observation: Observation, writer: StateWriter) -> ReconcileResult:
    """Reconcile a service inside the caller's write transaction; the database is the only I/O.

    Raises LeaseLost if a newer process holds the running deployment.
    """
    snapshot = load_service(session, name)
    if snapshot is None:
        return ReconcileResult(finished=True)
    own = recognized(observation.containers, {row.id: row.container_id for row in snapshot.instances})
    observation = replace(observation, containers=own)
    tx, writes = ServiceTransaction(session, writer, snapshot, observation), writer.writes
    restarted = record_container_status(tx)
    unhealthy = unhealthy_instances(snapshot, observation.containers, observation.endpoint_states, writer.clock.now())
    observed = observe_instances(
        snapshot,
        observation.containers,
        observation.endpoint_states,
        unhealthy,
        observation.watched_since,
        observation.probes.errors,
    )
    record_health(tx, observed)
    record_serving(tx, observed)
    plan = planner.plan(desired_state(snapshot, observation.backoff_until), observed, writer.clock.now())
    pending = next_pending(session, name)
    blocked = pending is not None and is_blocked(session, pending)
    activations = [Activate(pending.id)] if pending is not None and pending.id is not None and not blocked else []
    fetch = _missing_log_tail(tx, plan)
    result = ReconcileResult((fetch,)) if fetch is not None else _write_plan(tx, plan, observed)
    return replace(
        result,
        operations=tuple(
            operation for operation in (*activations, *result.operations) if operation.key not in observation.busy
        ),
        status=replace(
            result.status,
            instances=(*(row.id for row in snapshot.instances), *result.status.instances),
            probes=tuple(probe_targets(snapshot, observed)),
            checks=_engine_checks(snapshot, observation),
            warnings=tuple(warnings(snapshot.instances)),
            in_flight={instance.id: instance.in_flight for instance in observed},
            draining=any(instance.draining_since is not None and not instance.drained for instance in observed),
            changed=writer.writes > writes,
            blocked=blocked,
            idle=snapshot.deployment is None,
        ),
        crashes=(*restarted, *result.crashes),
        finished=snapshot.service.removed and not (snapshot.instances or snapshot.deployment or pending),
    )


def _engine_checks(snapshot: ServiceSnapshot, observation: Observation) -> dict[str, Mapping[str, Any]]:
    """Return instance id → result of the engine's last check, for instances that the engine checks."""
    rows = {row.id: row for row in snapshot.instances}
    checks = {
        container.instance: last_check(container, snapshot.revision_of(rows[container.instance]))
        for container in observation.containers
        if container.instance in rows
    }
    return {instance: check for instance, check in checks.items() if check is not None}


def _missing_log_tail(tx: ServiceTransaction, plan: Plan) -> FetchLogTail | None:
    """Return the operation that fetches the failing instance's log tail, unless the tail is there."""
    failed = plan.outcome.instance if isinstance(plan.outcome, Failed) else None
    row = next((row for row in tx.snapshot.instances if row.id == failed), None)
    if row is None or row.container_id is None or row.id in tx.observation.log_tails:
        return None
    return FetchLogTail(row, tx.snapshot.revision_of(row))


def _write_plan(tx: ServiceTransaction, plan: Plan, observed: Sequence[ObservedInstance]) -> ReconcileResult:
    """Write the plan's steps and the deployment's progress.

    The status of the result has what these writes add.
    """
    now = tx.writer.clock.now()
    publication = plan_publication(tx.snapshot, observed, tx.observation, now)
    plan = preserve_routes(tx, plan, observed, publication)
    steps = write_steps(tx, plan.steps, observed, admits=publication.is_confirmed)
    deployment = write_deployment(tx, plan, observed, publication, steps.capacity_error)
    requeue_at = min((at for at in (plan.requeue_at, publication.requeue_at) if at is not None), default=None)
    plan_changed = deployment.status_changed or any(isinstance(step, MarkDraining | Recall) for step in plan.steps)
    return ReconcileResult(
        operations=(
            *publication.operations,
            *steps.operations,
            *plan_reconnections(tx, observed, steps.operations),
        ),
        status=ReconcileStatus(
            instances=steps.created,
            routers_current=not publication.operations,
            awaited_links=deployment.awaited_links,
        ),
        requeue_after=0.0 if plan_changed else _seconds_until(requeue_at, now),
        crashes=steps.crashes,
        steps=plan.steps,
        concluded=plan.outcome is not None and plan_changed,
    )


def _seconds_until(moment: float | None, now: float) -> float | None:
    return max(moment - now, MIN_REQUEUE) if moment is not None else None
