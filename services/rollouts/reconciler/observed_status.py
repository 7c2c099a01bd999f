"""Recording of the observed state in the rows of the instances, before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlmodel import Session

from services.engine.port import ContainerView
from services.probes import Prober
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.state.planner_inputs import ready_since
from services.rollouts.state.repository import ServiceSnapshot
from services.rollouts.state.transitions import StateWriter
from services.store.tables import Instance


def record_container_status(
    session: Session, writer: StateWriter, snapshot: ServiceSnapshot, containers: Mapping[str, ContainerView], prober: Prober
) -> list[int]:
    """Record starts, restarts, deaths and readiness of the service's instances.

    Return the slots of the instances that died and that the engine restarted.
    """
    again = []
    deployment = snapshot.deployment.id if snapshot.deployment else None
    for row in snapshot.instances:
        container = containers.get(row.id)
        if container is None or container.state == "created":
            continue
        if container.state == "running":
            if _record_start(session, writer, row, container, deployment):
                again.append(row.slot)
            _record_readiness(session, writer, snapshot, row, container, prober, deployment)
        elif row.exit_code is None and row.status != "stopping":
            _record_death(session, writer, row, container, deployment)
    return again


def record_serving(
    session: Session, writer: StateWriter, snapshot: ServiceSnapshot, observed: Sequence[ObservedInstance]
) -> None:
    """Record which instances serve.

    An instance serves if every router admits it or, for an instance without a port, if the instance is ready.
    """
    deployment = snapshot.deployment.id if snapshot.deployment else None
    rows = {row.id: row for row in snapshot.instances}
    for instance in observed:
        row = rows[instance.id]
        if instance.serves and row.status in ("creating", "starting", "ready", "draining"):
            at = row.admitted_at
            if at is None or at < (row.ready_at or 0):  # the instance was restarted since it was admitted
                at = writer.clock.now()
            writer.set_instance_status(session, row, "serving", f"{row.id} serves", deployment, {"admitted_at": at})


def _record_start(
    session: Session, writer: StateWriter, row: Instance, container: ContainerView, deployment: int | None
) -> bool:
    """Record a new start of the container; return whether it is a restart."""
    if row.start == container.start_id:
        return False
    again = row.start is not None
    changes = {
        "container_id": container.container_id,
        "start": container.start_id,
        "started_at": writer.clock.now(),
        "ready_at": None,
        "exit_code": None,
        "restarts": row.restarts + 1 if again else row.restarts,
    }
    text = f"{row.id} started at {row.address}"
    if again:
        text = f"{row.id} was started again by the engine (restart {row.restarts + 1}); it is proved anew"
    status = row.status if row.leaving_at is not None else "starting"
    writer.set_instance_status(session, row, status, text, deployment, changes, died=again)
    return again


def _record_readiness(
    session: Session,
    writer: StateWriter,
    snapshot: ServiceSnapshot,
    row: Instance,
    container: ContainerView,
    prober: Prober,
    deployment: int | None,
) -> None:
    ready_at = ready_since(snapshot, row, container, prober, writer.clock.now())
    if (ready_at is None) == (row.ready_at is None):
        return
    if row.leaving_at is not None:
        row.ready_at = ready_at
        session.add(row)
    elif ready_at is not None:
        writer.set_instance_status(session, row, "ready", f"{row.id} is ready", deployment, {"ready_at": ready_at})
    else:
        writer.set_instance_status(session, row, "starting", f"{row.id} is no longer ready", deployment, {"ready_at": None})


def _record_death(
    session: Session, writer: StateWriter, row: Instance, container: ContainerView, deployment: int | None
) -> None:
    how = " (out of memory)" if container.oom_killed else ""
    text = f"{row.id} exited with code {container.exit_code}{how}"
    changes = {
        "container_id": container.container_id,
        "exit_code": container.exit_code,
        "oom_killed": container.oom_killed,
        "ready_at": None,
    }
    writer.set_instance_status(session, row, row.status, text, deployment, changes, event="instance_exited")
