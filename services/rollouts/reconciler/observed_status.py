"""Recording of the observed state in the rows of the instances, before anything is planned."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col

from services.engine.port import ContainerView
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.state.planner_inputs import ready_since
from services.store.events import EVENTS
from services.store.tables import Event, Instance


def record_container_status(tx: ServiceTransaction) -> tuple[int, ...]:
    """Record starts, restarts, deaths and readiness of the service's instances.

    Return the slots of the instances that died and that the engine restarted.
    """
    restarted: list[int] = []
    containers = {container.instance: container for container in tx.observation.containers}
    for row in tx.snapshot.instances:
        container = containers.get(row.id)
        if container is None or container.state == "created":
            continue
        if container.state == "running":
            if _record_start(tx, row, container):
                restarted.append(row.slot)
            _record_readiness(tx, row, container)
        elif row.exit_code is None and row.status != "stopping" and not _is_recorded(tx, row, container):
            _record_death(tx, row, container)
    return tuple(restarted)


def record_serving(tx: ServiceTransaction, observed: Sequence[ObservedInstance]) -> None:
    """Record which instances serve.

    An instance serves if every router admits it or, for an instance without a port, if the instance is ready.
    """
    rows = {row.id: row for row in tx.snapshot.instances}
    for instance in observed:
        row = rows[instance.id]
        if instance.serves and row.status in ("creating", "starting", "ready", "draining"):
            at = row.admitted_at
            if at is None or at < (row.ready_at or 0):  # the instance was restarted since it was admitted
                at = tx.writer.clock.now()
            changes = {"admitted_at": at}
            tx.writer.set_instance_status(tx.session, row, "serving", f"{row.id} serves", tx.deployment_id, changes)


def _record_start(tx: ServiceTransaction, row: Instance, container: ContainerView) -> bool:
    """Record a new start of the container; return whether it is a restart."""
    if row.start == container.start_id:
        return False
    restarted = row.start is not None
    changes = {
        "container_id": container.container_id,
        "start": container.start_id,
        "started_at": tx.writer.clock.now(),
        "ready_at": None,
        "exit_code": None,
        "restarts": row.restarts + 1 if restarted else row.restarts,
    }
    text = f"{row.id} started at {row.address}"
    if restarted:
        text = f"{row.id} restarted by the engine (restart {row.restarts + 1}); checking its health"
    status = row.status if row.leaving_at is not None else "starting"
    tx.writer.set_instance_status(tx.session, row, status, text, tx.deployment_id, changes, died=restarted)
    return restarted


def _record_readiness(tx: ServiceTransaction, row: Instance, container: ContainerView) -> None:
    ready_at = ready_since(tx.snapshot, row, container, tx.observation.probes, tx.writer.clock.now())
    if (ready_at is None) == (row.ready_at is None):
        return
    if row.leaving_at is not None:
        row.ready_at = ready_at
        tx.session.add(row)
        return
    status, text = ("ready", f"{row.id} is ready") if ready_at is not None else ("starting", f"{row.id} is no longer ready")
    tx.writer.set_instance_status(tx.session, row, status, text, tx.deployment_id, {"ready_at": ready_at})


def _is_recorded(tx: ServiceTransaction, row: Instance, container: ContainerView) -> bool:
    """Return whether the death of this start is recorded, for a container without an exit code."""
    if container.exit_code is not None:
        return False
    deaths = EVENTS.where(
        Event.service == row.service,
        Event.instance == row.id,
        Event.type == "instance_exited",
        col(Event.at) >= (row.started_at or 0),
    )
    return tx.session.exec(deaths.limit(1)).first() is not None


def _record_death(tx: ServiceTransaction, row: Instance, container: ContainerView) -> None:
    how = " (out of memory)" if container.oom_killed else ""
    code = f" with code {container.exit_code}" if container.exit_code is not None else ""
    text = f"{row.id} exited{code}{how}"
    row.container_id, row.ready_at = container.container_id, None
    row.exit_code, row.oom_killed = container.exit_code, container.oom_killed
    tx.writer.record_instance_event(tx.session, row, "instance_exited", text, tx.deployment_id)
