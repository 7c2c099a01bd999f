"""Recovery at start: reconcile the store with the running containers, then restore the routers.

The routers get exactly the instances that have proved to be ready.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, select

from services.engine.port import ContainerView
from services.probes import Prober, ProbeTarget
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.ports import Ports
from services.rollouts.state.id_floors import raise_id_floors
from services.rollouts.state.instance_health import HEALTHY
from services.rollouts.state.planner_inputs import observe_instances
from services.rollouts.state.recognition import container_ids, recognized, unknown_containers, unrecognized
from services.rollouts.state.revision_spec import revision_healthcheck, uses_engine_health
from services.rollouts.state.routing_config import active_revision, endpoint_for, linked_services, routed_service
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.service_snapshot import ServiceSnapshot, load_service
from services.rollouts.state.transitions import DIED, StateWriter
from services.routing.port import Endpoint, RoutedService
from services.store.tables import Instance, Service


async def recover(
    ports: Ports, writer: StateWriter, prober: Prober, runtime_status: RuntimeStatus, points: CrashPoints
) -> dict[str, RoutedService | None]:
    """Restore the rows and the routers, and return what the routers now know of every known service.

    The value is None for a service of which nothing is routed.
    """
    views = await ports.engine.observe()
    snapshots = await ports.store.read(_snapshots)
    ids = await ports.store.read(container_ids)
    containers = {view.instance: view for view in recognized(views, ids)}
    unknown = unrecognized(views, ids)
    runtime_status.set_unknown_containers(unknown_containers(unknown))
    to_probe = [pair for snapshot in snapshots for pair in _to_probe(snapshot, containers)]
    healthy = await prober.ask_all([_target(snapshot, row, containers[row.id]) for snapshot, row in to_probe])
    restarted = {row.id for _, row in to_probe if row.id in healthy and row.start != containers[row.id].start_id}

    def write(session: Session) -> None:
        raise_id_floors(session, views, unknown)
        _record_restarts(session, writer, containers, restarted)

    await ports.store.write(write)
    points.reached("start:restoring")
    snapshots = await ports.store.read(_snapshots)
    services, endpoints = _routing(snapshots, containers, await ports.store.read(linked_services))
    routed = [service for service in services.values() if service is not None]
    for router in ports.routers:
        services |= await router.restore(routed, endpoints)
    return services


def _routing(
    snapshots: Sequence[ServiceSnapshot], containers: dict[str, ContainerView], linked: set[str]
) -> tuple[dict[str, RoutedService | None], list[Endpoint]]:
    """Return the settings of every service for the routers, and the endpoints of the instances that serve."""
    services: dict[str, RoutedService | None] = {}
    endpoints: list[Endpoint] = []
    for snapshot in snapshots:
        name = snapshot.service.name
        revision = active_revision(snapshot, observe_instances(snapshot, list(containers.values()), [], {}))
        if revision is None or not snapshot.instances:
            services[name] = None
            continue
        services[name] = routed_service(snapshot.service, revision, name in linked)
        if services[name] is not None:
            endpoints += [
                endpoint_for(row, snapshot.revision_of(row), row.start or "")
                for row in snapshot.instances
                if row.port is not None and _serves(row, containers.get(row.id))
            ]
    return services, endpoints


def _snapshots(session: Session) -> list[ServiceSnapshot]:
    names = session.exec(select(Service.name).order_by(Service.name)).all()
    found = [load_service(session, name) for name in names]
    return [snapshot for snapshot in found if snapshot is not None]


def _serves(row: Instance, container: ContainerView | None) -> bool:
    running = container is not None and container.state == "running" and container.start_id == row.start
    if not running or row.admitted_at is None or row.leaving_at is not None:
        return False
    # an instance that fails its own `test` was withdrawn, and is not ready; any other unhealthy one is still admitted
    return row.status == "serving" or (row.status == "unhealthy" and row.ready_at is not None)


def _to_probe(snapshot: ServiceSnapshot, containers: dict[str, ContainerView]) -> list[tuple[ServiceSnapshot, Instance]]:
    """Return the instances to probe once before the routers are restored.

    These are the instances that the engine restarted while Sluice was not running, so that serving instances keep serving.
    The instances that were ready but did not serve yet are probed as well, so that none that still is ready is recorded as
    no longer ready.
    """
    return [
        (snapshot, row)
        for row in snapshot.instances
        if row.leaving_at is None
        and row.port is not None
        and (container := containers.get(row.id)) is not None
        and container.state == "running"
        and (row.admitted_at is not None if container.start_id != row.start else row.ready_at is not None)
        and not _serves(row, container)
        and not uses_engine_health(revision_healthcheck(snapshot.revision_of(row)), row.port)
    ]


def _target(snapshot: ServiceSnapshot, row: Instance, container: ContainerView) -> ProbeTarget:
    revision = snapshot.revision_of(row)
    check = revision_healthcheck(revision)
    return ProbeTarget(row.id, container.start_id, row.address, check.port or row.port or 0, check, revision.effective)


def _record_restarts(
    session: Session, writer: StateWriter, containers: dict[str, ContainerView], restarted: set[str]
) -> None:
    """Record the restarts, since which the instances have proved to be ready again."""
    now = writer.clock.now()
    for id in sorted(restarted):
        row, view = session.get_one(Instance, id), containers[id]
        changes = {
            **HEALTHY,
            "start": view.start_id,
            "container_id": view.container_id,
            "started_at": now,
            "ready_at": now,
            "restarts": row.restarts + 1,
        }
        text = f"{id} restarted by the engine while Sluice was down (restart {row.restarts + 1}); healthy"
        writer.set_instance_status(session, row, "serving", text, None, changes, data=DIED)
