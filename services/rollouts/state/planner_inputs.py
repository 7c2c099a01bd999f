"""The planner's inputs, desired state and observed instances, from store, engine, routers and probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from services.engine.port import ContainerView
from services.probes import ProbeSnapshot, ProbeTarget
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.state.instance_health import Unhealthy, lost_address
from services.rollouts.state.revision_spec import revision_healthcheck, revision_spec, uses_engine_health
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.routing.port import EndpointState
from services.store.tables import Instance, Revision


def desired_state(snapshot: ServiceSnapshot, create_after: float = 0) -> DesiredState:
    """Return the state to reach: of the new revision, the previous one (rollback), or the current one.

    `create_after` is the time (seconds since the epoch) before which no instance is created in steady state.
    """
    service, deployment = snapshot.service, snapshot.deployment
    revision = snapshot.desired_revision
    if revision is None:
        policy = snapshot.revisions.get(deployment.revision or 0) if deployment else None
        return _desired_state(policy, hash="", replicas=0, deployment=deployment.id if deployment else None)
    if deployment is None:
        return _desired_state(revision, hash=revision.hash, replicas=service.replicas, backoff_until=create_after)
    if deployment.status == "rolling_back":
        return _desired_state(
            revision,
            hash=revision.hash,
            replicas=deployment.from_replicas or 0,
            deployment=deployment.id,
            deadline=deployment.deadline_at,
            milestone=deployment.milestone,
            started_at=deployment.turned_at or 0,
            rolled_back_deployment=deployment.id,
        )
    return _desired_state(
        revision,
        hash=revision.hash,
        replicas=0 if deployment.kind == "remove" else deployment.replicas or 0,
        deployment=deployment.id,
        deadline=deployment.deadline_at,
        milestone=deployment.milestone,
        started_at=deployment.turned_at or 0,
        paused=deployment.status == "paused",
        required_deployment=deployment.id if deployment.kind == "restart" else None,
    )


def observe_instances(
    snapshot: ServiceSnapshot,
    containers: Sequence[ContainerView],
    endpoint_states: Sequence[Mapping[str, EndpointState]],
    unhealthy: Mapping[str, Unhealthy],
    watched_since: float = 0,
    probe_errors: Mapping[str, str] = MappingProxyType({}),
) -> list[ObservedInstance]:
    """Return one ObservedInstance for each instance that the store knows.

    Containers that the store does not know are not touched. `watched_since` is the time when this process of Sluice began:
    time in which no probe ran does not count against an instance. `probe_errors` maps instance ids to the errors of their
    last probes.
    """
    by_instance = {container.instance: container for container in containers}
    return [
        _observe_instance(
            snapshot,
            row,
            by_instance.get(row.id),
            endpoint_states,
            unhealthy.get(row.id),
            watched_since,
            probe_errors.get(row.id, ""),
        )
        for row in snapshot.instances
    ]


def probe_targets(snapshot: ServiceSnapshot, observed: Sequence[ObservedInstance]) -> list[ProbeTarget]:
    """Return the probe targets for running instances that have yet to prove themselves by an answer."""
    rows = {row.id: row for row in snapshot.instances}
    targets = []
    for instance in observed:
        row = rows[instance.id]
        revision = snapshot.revision_of(row)
        check = revision_healthcheck(revision)
        port = check.port or row.port
        if instance.container != "running" or instance.draining_since is not None or instance.admitted or row.start is None:
            continue
        if port is not None and not uses_engine_health(check, row.port):
            targets.append(ProbeTarget(row.id, row.start, row.address, port, check, revision.effective))
    return targets


def ready_since(
    snapshot: ServiceSnapshot, row: Instance, container: ContainerView | None, probes: ProbeSnapshot, now: float
) -> float | None:
    """Return the time since which the current start of an instance is ready, or None if it is not ready."""
    if container is None or container.state != "running":
        return None
    check = revision_healthcheck(snapshot.revision_of(row))
    if uses_engine_health(check, row.port):
        ready = container.health == "healthy" if check.test is not None else True
        return (row.ready_at or now) if ready else None
    if row.admitted_at is not None and (row.status in ("serving", "unhealthy", "draining") or _has_served_since_ready(row)):
        return row.ready_at
    return probes.ready_at.get((row.id, container.start_id))


def _has_served_since_ready(row: Instance) -> bool:
    """Return whether the instance was admitted after it was last proved ready.

    Such an instance is not probed again before it is recalled. Spring's health endpoint repeats the registry's status, so it
    reports OUT_OF_SERVICE for as long as Sluice does.
    """
    proved, served = row.ready_at, row.admitted_at
    return row.status == "ready" and proved is not None and served is not None and proved <= served


def _desired_state(revision: Revision | None, **fields: object) -> DesiredState:
    if revision is None:
        return DesiredState(**fields)  # type: ignore[arg-type]
    spec = revision_spec(revision)
    return DesiredState(
        strategy=spec.effective_strategy,
        max_surge=spec.max_surge,
        max_unavailable=spec.max_unavailable,
        min_ready=spec.min_ready_seconds,
        start_period=revision_healthcheck(revision).start_period,
        drain_timeout=spec.drain_timeout,
        stop_grace=spec.stop_grace_period,
        **fields,  # type: ignore[arg-type]
    )


def _observe_instance(
    snapshot: ServiceSnapshot,
    row: Instance,
    container: ContainerView | None,
    endpoint_states: Sequence[Mapping[str, EndpointState]],
    unhealthy: Unhealthy | None,
    watched_since: float,
    probe_error: str,
) -> ObservedInstance:
    routed = row.port is not None
    states = [by_instance[row.id] for by_instance in endpoint_states if routed and row.id in by_instance]
    admitted = [state.state == "admitted" for state in states]
    by_every_router = bool(states) and len(states) == len(endpoint_states) and all(admitted)
    restarting = container is not None and container.restarting  # the next start is the one to judge
    started_at = None if restarting or row.started_at is None else max(row.started_at, watched_since)
    return ObservedInstance(
        id=row.id,
        slot=row.slot,
        hash=row.hash,
        deployment=row.deployment,
        container=container.state if container else "none",
        routed=routed,
        created_at=row.created_at,
        started_at=started_at,
        ready_at=None if restarting else row.ready_at,
        admitted=any(admitted) if row.leaving_at is not None else by_every_router,
        healthy=all(state.healthy for state in states),
        unhealthy_since=unhealthy.since if unhealthy is not None else None,
        unhealthy_reason=unhealthy.reason if unhealthy is not None else "",
        lost=lost_address(row, container) if container is not None else "",
        known_to_router=bool(states),
        drained=all(state.drained for state in states),
        auto_restart=container is None or container.auto_restart,
        in_flight=sum(state.in_flight for state in states),
        drain_blocker="; ".join(state.drain_blocker for state in states if state.drain_blocker),
        drain_not_before=max((state.drain_not_before for state in states), default=0),
        draining_since=row.leaving_at,
        stopping=row.status in ("stopping", "failed"),
        force_closed_at=row.cut_at,
        died=row.restarts > 0 or (row.container_id is not None and (container is None or container.state == "exited")),
        failure=(row.failure_reason or "", row.failure or "") if _failed_to_start(row) else None,
        exit_description=_exit_description(row, container),
        last_probe_error=probe_error,
    )


def _failed_to_start(row: Instance) -> bool:
    """Return whether the engine refused to start the instance.

    A container that exists all the same is removed.
    """
    refused = row.status == "failed" and row.leaving_at is None
    return row.failure_reason is not None and (row.container_id is None or refused)


def _exit_description(row: Instance, container: ContainerView | None) -> str:
    code = container.exit_code if container and container.state == "exited" else row.exit_code
    oom = row.oom_killed or (container is not None and container.oom_killed)
    again = container is not None and container.state == "running"
    gone = "exited and was restarted by the engine" if again else "disappeared"
    how = f"exited with code {code}" if code is not None else gone
    how += " (out of memory)" if oom else ""
    return how + (" after it had served" if row.admitted_at is not None else " before it was ready")
