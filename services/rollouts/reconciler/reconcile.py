"""The reconciliation of one service in one transaction.

Record the observation, plan, write the rows, and return the operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlmodel import Session

from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.planner import plan
from services.rollouts.planner.steps import Create, Failed, MarkDraining, Plan, Recall, Start, Stop, Succeeded
from services.rollouts.reconciler.linking import failed_by_routers, unserved_links
from services.rollouts.reconciler.observed_status import record_container_status, record_serving
from services.rollouts.reconciler.operations import ExecuteStep
from services.rollouts.reconciler.result import Observation, ReconcileResult
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.state.addresses import SubnetExhausted, allocate_address
from services.rollouts.state.dependencies import is_blocked
from services.rollouts.state.host_ports import HostPortsExhausted, allocate_host_port
from services.rollouts.state.planner_inputs import desired_state, observe_instances, probe_targets
from services.rollouts.state.queue import next_pending
from services.rollouts.state.repository import ServiceSnapshot, load_service
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.routing_config import active_revision, is_published, routed_service, traffic_split
from services.rollouts.state.status import Kind, Status
from services.rollouts.state.transitions import StateWriter
from services.store.tables import Instance, Revision


def reconcile_service(session: Session, name: str, observation: Observation, writer: StateWriter) -> ReconcileResult:
    """Reconcile a service inside the caller's write transaction; the database is the only I/O."""
    snapshot = load_service(session, name)
    result, writes = ReconcileResult(), writer.writes
    if snapshot is None:
        result.finished = True
        return result
    next_up = next_pending(session, name)
    result.blocked = next_up is not None and is_blocked(session, next_up)
    result.activate = [next_up.id] if next_up is not None and next_up.id is not None and not result.blocked else []
    result.idle = snapshot.deployment is None
    tx = ServiceTransaction(session, writer, snapshot, observation)
    result.crashed_slots = [*record_container_status(tx)]
    observed = observe_instances(
        snapshot,
        observation.containers,
        observation.endpoint_states,
        observation.unhealthy_since,
        observation.watched_since,
        observation.probes.errors,
    )
    record_serving(tx, observed)
    now = writer.clock.now()
    made = plan(desired_state(snapshot, observation.backoff_until), observed, now)
    result.instances = [row.id for row in snapshot.instances]
    result.needs_log_tail = _failed_without_log(snapshot, made, observation)
    if result.needs_log_tail is not None:
        result.changed = writer.writes > writes
        return result
    result.plan = made
    result.probes = probe_targets(snapshot, observed)
    result.in_flight = {instance.id: instance.in_flight for instance in observed}
    result.draining = any(instance.draining_since is not None and not instance.drained for instance in observed)
    _plan_publication(snapshot, observed, observation, result)
    crashes = {instance.id: instance.exit_description or "exited" for instance in observed if instance.dead}
    _steps(session, snapshot, made, crashes, observation, writer, result)
    if snapshot.deployment is not None:
        _deployment(session, snapshot, observed, made, observation, writer, result)
    result.requeue_now |= any(isinstance(step, MarkDraining | Recall) for step in made.steps)
    result.finished = snapshot.service.removed and not (snapshot.instances or snapshot.deployment or next_up)
    result.changed = writer.writes > writes
    return result


def _failed_without_log(snapshot: ServiceSnapshot, made: Plan, observation: Observation) -> tuple[Instance, Revision] | None:
    failed = made.outcome.instance if isinstance(made.outcome, Failed) else None
    row = next((row for row in snapshot.instances if row.id == failed), None)
    if row is None or row.container_id is None or row.id in observation.log_tails:
        return None
    return row, snapshot.revision_of(row)


def _plan_publication(
    snapshot: ServiceSnapshot, observed: Sequence[ObservedInstance], observation: Observation, result: ReconcileResult
) -> None:
    revision = active_revision(snapshot, observed)
    if revision is not None:
        result.routed = routed_service(snapshot.service, revision, observation.is_linked)
    removal = snapshot.deployment if snapshot.deployment is not None and snapshot.deployment.kind == Kind.REMOVE else None
    if removal is not None and not snapshot.instances:
        result.routed = None
    elif removal is not None and removal.status != Status.ROLLING_BACK:
        result.routed = observation.published  # a removal needs no new router settings, which might be impossible to apply
    left = any(row.port is not None for row in snapshot.instances)
    result.unpublish = observation.published is not None and result.routed is None and not left


def _steps(
    session: Session,
    snapshot: ServiceSnapshot,
    made: Plan,
    crashes: Mapping[str, str],
    observation: Observation,
    writer: StateWriter,
    result: ReconcileResult,
) -> None:
    """Write the rows of the steps, and add operations to `result`.

    A step becomes an operation if it needs the engine or the routers.
    """
    rows = {row.id: row for row in snapshot.instances}
    deployment = snapshot.deployment.id if snapshot.deployment else None
    for step in made.steps:
        match step:
            case Create(slot):
                try:
                    row = _allocate_instance(session, snapshot, slot, observation.subnet, writer, deployment)
                except (SubnetExhausted, HostPortsExhausted) as error:
                    result.capacity_error = str(error)
                    continue
                result.instances.append(row.id)
                result.operations.append(ExecuteStep(Start(row.id), row, snapshot.revision_of(row), deployment))
            case MarkDraining(instance):
                _start_draining(session, rows[instance], crashes.get(instance), writer, deployment)
                result.crashed_slots += [rows[instance].slot] if instance in crashes else []
            case Recall(instance):
                changes = {"leaving_at": None, "cut_at": None}
                text = f"{instance} stays: it is wanted again"
                writer.set_instance_status(session, rows[instance], "ready", text, deployment, changes)
            case _:
                row = rows[step.instance]
                if not observation.is_current(row.id):
                    continue  # the end of the operation in progress leads to another reconcile
                if isinstance(step, Stop) and row.status not in ("stopping", "failed"):
                    # written before the container is stopped: from here on the instance cannot be recalled
                    writer.set_instance_status(
                        session, row, "stopping", f"{row.id} has nothing in flight and is told to stop", deployment
                    )
                result.operations.append(ExecuteStep(step, row, snapshot.revision_of(row), deployment))


def _allocate_instance(
    session: Session, snapshot: ServiceSnapshot, slot: int, subnet: str, writer: StateWriter, deployment: int | None
) -> Instance:
    """Store a new instance before the engine is called, and return its row.

    The instance gets an id, an address and, if the spec asks for one, a host port.

    Raises SubnetExhausted if no address is free, and HostPortsExhausted if no host port is free.
    """
    revision = snapshot.desired_revision
    if revision is None:
        raise ValueError(f"{snapshot.service.name} has no revision to make an instance of")
    address, wanted = allocate_address(session, subnet), revision_spec(revision).host_port
    host_port = allocate_host_port(session, wanted) if wanted is not None else None
    row = Instance(
        id=f"{revision.service}-r{revision.number}-{revision.next_instance}",
        service=revision.service,
        revision=revision.number,
        deployment=deployment or revision.deployment,
        slot=slot,
        address=address,
        port=revision.port if host_port is None or revision.port is None else host_port,
        host_port=host_port,
        hash=revision.hash,
        created_at=writer.clock.now(),
    )
    revision.next_instance += 1
    session.add(revision)
    writer.set_instance_status(session, row, "creating", f"{row.id} is being started", deployment)
    session.flush()
    return row


def _start_draining(session: Session, row: Instance, death: str | None, writer: StateWriter, deployment: int | None) -> None:
    """Mark an instance as draining, or as failed if the instance died by itself.

    `death` describes how the instance died, or is None.
    """
    now = writer.clock.now()
    if death is None:
        text = f"{row.id} gets no new requests"
        writer.set_instance_status(session, row, "draining", text, deployment, {"leaving_at": now})
        return
    why = row.failure or f"{row.id} {death}"
    changes = {
        "leaving_at": now,
        "failure_reason": row.failure_reason or "died",
        "failure": why,
        "failed_deployment": deployment,
    }
    writer.set_instance_status(session, row, "failed", f"{why}; it is taken away", deployment, changes, died=True)


def _deployment(
    session: Session,
    snapshot: ServiceSnapshot,
    observed: Sequence[ObservedInstance],
    made: Plan,
    observation: Observation,
    writer: StateWriter,
    result: ReconcileResult,
) -> None:
    """Record the progress of the running deployment, and its outcome if there is one."""
    deployment = snapshot.deployment
    if deployment is None:
        return
    writer.lease(deployment)
    policy = snapshot.revisions.get(deployment.revision or 0) or snapshot.current_revision
    spec = revision_spec(policy) if policy is not None else None
    timeout = spec.progress_deadline_seconds if spec is not None else 300.0
    before = deployment.status
    traffic = traffic_split(snapshot.instances, observed, snapshot.current_revision)
    links = unserved_links(snapshot, observation.unserved_link)
    result.waits_for_links = bool(links)
    waits_for = next((instance.drain_blocker for instance in observed if instance.drain_blocker), "")
    if links and not waits_for:
        waits_for = f"the gateway does not answer for {', '.join(links)} yet"
    writer.progress(session, deployment, made.progress, traffic, timeout, waits_for)
    published = not result.unpublish and is_published(result.routed, observation.published)
    outcome = made.outcome
    if isinstance(outcome, Succeeded) and (not published or links):
        outcome = None  # the deployment has not succeeded before the routers confirm the service and its links
    if outcome is None and deployment.status == "progressing":
        trouble = observation.persistent_router_error or (None if published or result.unpublish else observation.unpublished)
        outcome = failed_by_routers(trouble, links)
    if outcome is None and result.capacity_error is not None:
        outcome = Failed("no_capacity", result.capacity_error)
    if isinstance(outcome, Succeeded):
        writer.complete(session, snapshot.service, deployment)
    elif isinstance(outcome, Failed) and deployment.status != "paused":
        _fail(session, snapshot, outcome, observation, writer, timeout)
    result.requeue_now |= deployment.status != before


def _fail(
    session: Session,
    snapshot: ServiceSnapshot,
    failed: Failed,
    observation: Observation,
    writer: StateWriter,
    timeout: float,
) -> None:
    deployment = snapshot.deployment
    row = next((row for row in snapshot.instances if row.id == failed.instance), None)
    if row is not None and deployment is not None:
        changes = {
            "leaving_at": row.leaving_at or writer.clock.now(),
            "failure_reason": row.failure_reason or failed.reason,
            "failure": row.failure or failed.message,
            "failed_deployment": deployment.id,
            "log_tail": row.log_tail or observation.log_tails.get(row.id),
        }
        if row.status != "failed":  # if the engine refused to start the instance, that event is recorded already
            writer.set_instance_status(session, row, "failed", failed.message, deployment.id, changes)
        for name, value in changes.items():
            setattr(row, name, value)
    if deployment is not None:
        writer.fail(session, deployment, failed, timeout)
