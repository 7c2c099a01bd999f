"""The rows that a plan's steps write, and the operations of steps that need engine or routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import health_deadline_exceeded
from services.rollouts.planner.steps import Admit, Create, MarkDraining, Recall, Start, Step, Stop
from services.rollouts.reconciler.operations import ExecuteStep, Reconnect
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.state.addresses import SubnetExhausted, allocate_address
from services.rollouts.state.host_ports import HostPortsExhausted, allocate_host_port
from services.rollouts.state.planner_inputs import desired_state
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import Kind
from services.rollouts.state.transitions import DIED
from services.store.tables import Instance


@dataclass(frozen=True)
class StepWrites:
    """The result of the steps' writes."""

    operations: tuple[ExecuteStep, ...]
    created: tuple[str, ...]
    """Ids of the new instances."""
    crashes: tuple[int, ...]
    """Slots of the instances that died by themselves and are replaced."""
    capacity_error: str | None
    """The reason why no more instances can be created."""


def write_steps(
    tx: ServiceTransaction, steps: Sequence[Step], observed: Sequence[ObservedInstance], *, admits: bool
) -> StepWrites:
    """Write the rows of the steps.

    `admits` says whether the routers know the service, so that Admit steps may follow.
    """
    rows = {row.id: row for row in tx.snapshot.instances}
    deaths = {instance.id: _failure(instance) for instance in observed if instance.failed}
    by_id = {instance.id: instance for instance in observed}
    operations: list[ExecuteStep] = []
    created: list[str] = []
    crashes: list[int] = []
    capacity_error: str | None = None
    for step in steps:
        match step:
            case Create(slot):
                try:
                    row = _allocate_instance(tx, slot)
                except (SubnetExhausted, HostPortsExhausted) as error:
                    capacity_error = str(error)
                    continue
                created.append(row.id)
                operations.append(_operation(tx, Start(row.id), row))
            case MarkDraining(id):
                if id in deaths:
                    _mark_failed(tx, rows[id], deaths[id])
                    crashes.append(rows[id].slot)
                else:
                    overdue = tx.snapshot.deployment is None and _is_overdue(tx, by_id[id])
                    _mark_draining(tx, rows[id], by_id[id], data=DIED if overdue else {})
                    crashes += [rows[id].slot] if overdue else []
            case Recall(id):
                _recall(tx, rows[id])
            case Admit() if not admits:
                continue
            case _ if step.instance not in tx.observation.busy:
                row = rows[step.instance]
                if isinstance(step, Stop):
                    _mark_stopping(tx, row)
                operations.append(_operation(tx, step, row))
    return StepWrites(tuple(operations), tuple(created), tuple(crashes), capacity_error)


def plan_reconnections(
    tx: ServiceTransaction, observed: Sequence[ObservedInstance], operations: Sequence[ExecuteStep]
) -> list[Reconnect]:
    """Return the reconnections of draining instances with requests in flight for which no step is planned."""
    rows = {row.id: row for row in tx.snapshot.instances}
    planned = {operation.key for operation in operations}
    return [
        Reconnect(rows[instance.id])
        for instance in observed
        if instance.lost and instance.draining_since is not None and not instance.drained and instance.id not in planned
    ]


def _operation(tx: ServiceTransaction, step: Step, row: Instance) -> ExecuteStep:
    return ExecuteStep(step, row, tx.snapshot.revision_of(row), tx.deployment_id)


def _allocate_instance(tx: ServiceTransaction, slot: int) -> Instance:
    """Store a new instance before the engine is called, and return its row.

    The instance gets an id, an address and, if the spec asks for one, a host port.

    Raises SubnetExhausted if no address is free, and HostPortsExhausted if no host port is free.
    """
    revision = tx.snapshot.desired_revision
    if revision is None:
        raise ValueError(f"{tx.snapshot.service.name} has no revision to create an instance from")
    address, requested = allocate_address(tx.session, tx.observation.subnet), revision_spec(revision).host_port
    host_port = allocate_host_port(tx.session, requested) if requested is not None else None
    row = Instance(
        id=f"{revision.service}-r{revision.number}-{revision.next_instance}",
        service=revision.service,
        revision=revision.number,
        deployment=tx.deployment_id or revision.deployment,
        slot=slot,
        address=address,
        port=revision.port if host_port is None or revision.port is None else host_port,
        host_port=host_port,
        hash=revision.hash,
        created_at=tx.writer.clock.now(),
    )
    revision.next_instance += 1
    tx.session.add(revision)
    tx.writer.set_instance_status(tx.session, row, "creating", f"{row.id} starting", tx.deployment_id)
    tx.session.flush()
    return row


def _failure(instance: ObservedInstance) -> str:
    return instance.exit_description or "exited" if instance.dead else instance.lost


def _is_overdue(tx: ServiceTransaction, instance: ObservedInstance) -> bool:
    """Return whether an instance goes because it is unhealthy, which counts as a crash."""
    return health_deadline_exceeded(desired_state(tx.snapshot), instance, tx.writer.clock.now())


def _mark_draining(tx: ServiceTransaction, row: Instance, instance: ObservedInstance, data: Mapping[str, Any]) -> None:
    """Mark an instance as draining; the event says why."""
    now = tx.writer.clock.now()
    text = f"{row.id} draining: {_drain_reason(tx, row, instance, now)}"
    tx.writer.set_instance_status(tx.session, row, "draining", text, tx.deployment_id, {"leaving_at": now}, data=data)


def _drain_reason(tx: ServiceTransaction, row: Instance, instance: ObservedInstance, now: float) -> str:
    """Return the clause that says why an instance must go."""
    deployment, revision = tx.snapshot.deployment, tx.snapshot.desired_revision
    if deployment is not None and deployment.kind == Kind.REMOVE:
        return f"deployment {deployment.id} removes the service"
    if deployment is not None and (revision is None or row.hash != revision.hash or deployment.kind == Kind.RESTART):
        return f"deployment {deployment.id} ({deployment.kind}) replaces it"
    if instance.unhealthy_since is not None:
        return f"unhealthy for {now - instance.unhealthy_since:.0f} s, {instance.unhealthy_reason}"
    if instance.ready_at is None and not instance.admitted and instance.started_at is not None:
        last = f": {instance.last_probe_error}" if instance.last_probe_error else ""
        return f"not healthy within {now - instance.started_at:.0f} s{last}"
    return f"deployment {deployment.id} ({deployment.kind}) needs fewer instances" if deployment is not None else "surplus"


def _mark_failed(tx: ServiceTransaction, row: Instance, death: str) -> None:
    """Mark an instance that died by itself as failed and draining. `death` says how it died."""
    why = row.failure or f"{row.id} {death}"
    changes = {
        "leaving_at": tx.writer.clock.now(),
        "failure_reason": row.failure_reason or "died",
        "failure": why,
        "failed_deployment": tx.deployment_id,
    }
    text = f"{why}; removing it"
    tx.writer.set_instance_status(tx.session, row, "failed", text, tx.deployment_id, changes, data=DIED)


def _recall(tx: ServiceTransaction, row: Instance) -> None:
    changes = {"leaving_at": None, "cut_at": None}
    text = f"{row.id} recalled: it matches again"
    tx.writer.set_instance_status(tx.session, row, "ready", text, tx.deployment_id, changes)


def _mark_stopping(tx: ServiceTransaction, row: Instance) -> None:
    """Record that the instance stops before its container is stopped: from here on it cannot be recalled."""
    if row.status not in ("stopping", "failed"):
        text = f"{row.id} drained; sending the stop signal"
        tx.writer.set_instance_status(tx.session, row, "stopping", text, tx.deployment_id)
