"""Recording of the observed state in the rows of the instances, before anything is planned."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col

from services.engine.port import ContainerView
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.state.instance_health import HEALTHY
from services.rollouts.state.planner_inputs import ready_since
from services.rollouts.state.transitions import DIED
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
        if container.restarting:
            _record_exit_before_restart(tx, row)
        elif container.state == "running":
            if _record_start(tx, row, container):
                restarted.append(row.slot)
            _record_readiness(tx, row, container)
        elif row.exit_code is None and row.status != "stopping" and not _is_recorded(tx, row, container):
            _record_death(tx, row, container)
    return tuple(restarted)


def record_health(tx: ServiceTransaction, observed: Sequence[ObservedInstance]) -> None:
    """Record which instances became unhealthy or healthy again, since when and why."""
    rows = {row.id: row for row in tx.snapshot.instances}
    for instance in observed:
        row = rows[instance.id]
        if instance.unhealthy_since is None:
            if row.unhealthy_since is not None and row.leaving_at is None:
                _record_recovery(tx, row, instance)
        elif row.unhealthy_since is None:
            _record_unhealthy(tx, row, instance)
        elif row.unhealthy_reason != instance.unhealthy_reason:
            row.unhealthy_reason = instance.unhealthy_reason
            tx.session.add(row)


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
        **HEALTHY,
        "restarts": row.restarts + 1 if restarted else row.restarts,
    }
    text = f"{row.id} started at {row.address}"
    if restarted:
        text = f"{row.id} restarted by the engine (restart {row.restarts + 1}); checking its health"
    status = row.status if row.leaving_at is not None else "starting"
    tx.writer.set_instance_status(tx.session, row, status, text, tx.deployment_id, changes, data=DIED if restarted else {})
    return restarted


def _record_exit_before_restart(tx: ServiceTransaction, row: Instance) -> None:
    """Record that the engine waits before it starts the container again; until then nothing serves."""
    if row.leaving_at is not None or row.status not in ("ready", "serving", "unhealthy"):
        return
    row.status = "starting"
    text = f"{row.id} exited; the engine starts it again"
    tx.writer.record_instance_event(tx.session, row, "instance_exited", text, tx.deployment_id)


def _record_readiness(tx: ServiceTransaction, row: Instance, container: ContainerView) -> None:
    ready_at = ready_since(tx.snapshot, row, container, tx.observation.probes, tx.writer.clock.now())
    if (ready_at is None) == (row.ready_at is None):
        return
    if row.leaving_at is not None or row.status == "unhealthy" or container.health == "unhealthy":
        row.ready_at = ready_at  # record_health records the status of an unhealthy instance
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


def _record_unhealthy(tx: ServiceTransaction, row: Instance, instance: ObservedInstance) -> None:
    since, reason = instance.unhealthy_since, instance.unhealthy_reason
    changes = {"unhealthy_since": since, "unhealthy_reason": reason}
    text = f"{row.id} is unhealthy: {reason}"
    data = {"reason": reason, "since": since}
    tx.writer.set_instance_status(tx.session, row, "unhealthy", text, tx.deployment_id, changes, data=data)


def _record_recovery(tx: ServiceTransaction, row: Instance, instance: ObservedInstance) -> None:
    seconds = tx.writer.clock.now() - (row.unhealthy_since or 0)
    data = {"reason": row.unhealthy_reason, "since": row.unhealthy_since}
    row.unhealthy_since = row.unhealthy_reason = None
    if row.status == "unhealthy":
        row.status = "serving" if instance.serves else "ready" if row.ready_at is not None else "starting"
    text = f"{row.id} is healthy again after {seconds:.0f} s"
    tx.writer.record_instance_event(tx.session, row, "instance_recovered", text, tx.deployment_id, data=data)


def _record_death(tx: ServiceTransaction, row: Instance, container: ContainerView) -> None:
    how = " (out of memory)" if container.oom_killed else ""
    code = f" with code {container.exit_code}" if container.exit_code is not None else ""
    text = f"{row.id} exited{code}{how}"
    row.container_id, row.ready_at = container.container_id, None
    row.exit_code, row.oom_killed = container.exit_code, container.oom_killed
    tx.writer.record_instance_event(tx.session, row, "instance_exited", text, tx.deployment_id)
