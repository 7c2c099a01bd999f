"""Reconcile one service in one transaction: record what is observed, plan, write the rows, hand out the operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlmodel import Session

from services.probes import Prober
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.planner import plan
from services.rollouts.planner.steps import Create, Done, Failed, Plan, Recall, Retire, Start, Stop
from services.rollouts.reconciler.executor import Order
from services.rollouts.reconciler.linking import failed_by_routers, unserved_links
from services.rollouts.reconciler.observed_status import note_containers, note_service
from services.rollouts.reconciler.result import Decision, Observation
from services.rollouts.state.addresses import NoAddress, reserve
from services.rollouts.state.dependencies import waits
from services.rollouts.state.host_ports import NoHostPort, draw
from services.rollouts.state.planner_inputs import desired_state, observe_instances, probe_targets
from services.rollouts.state.queue import due
from services.rollouts.state.repository import Snapshot, load
from services.rollouts.state.revision_spec import spec_of
from services.rollouts.state.routing_config import is_published, routed_service, settings_of, traffic_of
from services.rollouts.state.status import Kind, Status
from services.rollouts.state.transitions import Ledger
from services.store.tables import Instance, Revision


def decide(session: Session, name: str, observation: Observation, ledger: Ledger, prober: Prober) -> Decision:
    """Runs inside a write transaction; no I/O but the database."""
    snapshot = load(session, name)
    decision, writes = Decision(), ledger.writes
    if snapshot is None:
        decision.over = True
        return decision
    next_up = due(session, name)
    decision.held = next_up is not None and waits(session, next_up)
    decision.begin = [next_up.id] if next_up is not None and next_up.id is not None and not decision.held else []
    decision.at_rest = snapshot.deployment is None
    by_instance = {container.instance: container for container in observation.containers}
    decision.deaths = note_containers(session, ledger, snapshot, by_instance, prober)
    complaints = prober.complaints(row.id for row in snapshot.instances)
    observed = observe_instances(
        snapshot,
        observation.containers,
        observation.endpoint_states,
        observation.unhealthy_since,
        observation.watched_since,
        complaints,
    )
    note_service(session, ledger, snapshot, observed)
    now = ledger.clock.now()
    made = plan(desired_state(snapshot, observation.backoff_until), observed, now)
    decision.instances = [row.id for row in snapshot.instances]
    decision.unheard = _unheard(snapshot, made, observation)
    if decision.unheard is not None:
        decision.changed = ledger.writes > writes
        return decision
    decision.plan = made
    decision.probes = probe_targets(snapshot, observed)
    decision.in_flight = {instance.id: instance.in_flight for instance in observed}
    decision.draining = any(instance.draining_since is not None and not instance.drained for instance in observed)
    _publication(snapshot, observed, observation, decision)
    deaths = {instance.id: instance.exit_description or "exited" for instance in observed if instance.dead}
    _steps(session, snapshot, made, deaths, observation, ledger, decision)
    if snapshot.deployment is not None:
        _deployment(session, snapshot, observed, made, observation, ledger, decision)
    decision.again |= any(isinstance(step, Retire | Recall) for step in made.steps)
    decision.over = snapshot.service.removed and not (snapshot.instances or snapshot.deployment or next_up)
    decision.changed = ledger.writes > writes
    return decision


def _unheard(snapshot: Snapshot, made: Plan, observation: Observation) -> tuple[Instance, Revision] | None:
    failed = made.verdict.instance if isinstance(made.verdict, Failed) else None
    row = next((row for row in snapshot.instances if row.id == failed), None)
    if row is None or row.container_id is None or row.id in observation.log_tails:
        return None
    return row, snapshot.revision_of(row)


def _publication(
    snapshot: Snapshot, observed: Sequence[ObservedInstance], observation: Observation, decision: Decision
) -> None:
    revision = settings_of(snapshot, observed)
    if revision is not None:
        decision.routed = routed_service(snapshot.service, revision, observation.is_linked)
    removal = snapshot.deployment if snapshot.deployment is not None and snapshot.deployment.kind == Kind.REMOVE else None
    if removal is not None and not snapshot.instances:
        decision.routed = None
    elif removal is not None and removal.status != Status.ROLLING_BACK:
        decision.routed = observation.published  # what leaves needs nothing new of the routers, which may be impossible
    left = any(row.port is not None for row in snapshot.instances)
    decision.unpublish = observation.published is not None and decision.routed is None and not left


def _steps(
    session: Session,
    snapshot: Snapshot,
    made: Plan,
    deaths: Mapping[str, str],
    observation: Observation,
    ledger: Ledger,
    decision: Decision,
) -> None:
    """Rows are written here; what needs the engine or the routers becomes an order."""
    rows = {row.id: row for row in snapshot.instances}
    deployment = snapshot.deployment.id if snapshot.deployment else None
    for step in made.steps:
        match step:
            case Create(slot):
                try:
                    row = _reserve(session, snapshot, slot, observation.subnet, ledger, deployment)
                except (NoAddress, NoHostPort) as error:
                    decision.full = str(error)
                    continue
                decision.instances.append(row.id)
                decision.orders.append(Order(Start(row.id), row, snapshot.revision_of(row), deployment))
            case Retire(instance):
                _retire(session, rows[instance], deaths.get(instance), ledger, deployment)
                decision.deaths += [rows[instance].slot] if instance in deaths else []
            case Recall(instance):
                changes = {"leaving_at": None, "cut_at": None}
                text = f"{instance} stays: it is wanted again"
                ledger.instance(session, rows[instance], "ready", text, deployment, changes)
            case _:
                row = rows[step.instance]
                if not observation.is_current(row.id):
                    continue  # the end of what is being done to it brings another look
                if isinstance(step, Stop) and row.status not in ("stopping", "failed"):
                    # said before it is done: from here on it cannot be taken back
                    ledger.instance(
                        session, row, "stopping", f"{row.id} has nothing in flight and is told to stop", deployment
                    )
                decision.orders.append(Order(step, row, snapshot.revision_of(row), deployment))


def _reserve(
    session: Session, snapshot: Snapshot, slot: int, subnet: str, ledger: Ledger, deployment: int | None
) -> Instance:
    """An id, an address and a host port if one is wanted, in the store before the engine is asked. Raises NoAddress and
    NoHostPort."""
    revision = snapshot.wanted
    if revision is None:
        raise ValueError(f"{snapshot.service.name} has no revision to make an instance of")
    address, wanted = reserve(session, subnet), spec_of(revision).host_port
    host_port = draw(session, wanted) if wanted is not None else None
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
        created_at=ledger.clock.now(),
    )
    revision.next_instance += 1
    session.add(revision)
    ledger.instance(session, row, "creating", f"{row.id} is being started", deployment)
    session.flush()
    return row


def _retire(session: Session, row: Instance, death: str | None, ledger: Ledger, deployment: int | None) -> None:
    """On its way out. `death`: how it had died by itself."""
    now = ledger.clock.now()
    if death is None:
        text = f"{row.id} gets no new requests"
        ledger.instance(session, row, "draining", text, deployment, {"leaving_at": now})
        return
    why = row.failure or f"{row.id} {death}"
    changes = {
        "leaving_at": now,
        "failure_reason": row.failure_reason or "died",
        "failure": why,
        "failed_deployment": deployment,
    }
    ledger.instance(session, row, "failed", f"{why}; it is taken away", deployment, changes, died=True)


def _deployment(
    session: Session,
    snapshot: Snapshot,
    observed: Sequence[ObservedInstance],
    made: Plan,
    observation: Observation,
    ledger: Ledger,
    decision: Decision,
) -> None:
    """The running deployment's counts, and its last word once there is one."""
    deployment = snapshot.deployment
    if deployment is None:
        return
    ledger.lease(deployment)
    policy = snapshot.revisions.get(deployment.revision or 0) or snapshot.present
    spec = spec_of(policy) if policy is not None else None
    patience = spec.progress_deadline_seconds if spec is not None else 300.0
    before = deployment.status
    traffic = traffic_of(snapshot.instances, observed, snapshot.present)
    links = unserved_links(snapshot, observation.unserved_link)
    decision.waits_for_links = bool(links)
    waits_for = next((instance.drain_blocker for instance in observed if instance.drain_blocker), "")
    if links and not waits_for:
        waits_for = f"the gateway does not answer for {', '.join(links)} yet"
    ledger.progress(session, deployment, made.progress, traffic, patience, waits_for)
    published = not decision.unpublish and is_published(decision.routed, observation.published)
    verdict = made.verdict
    if isinstance(verdict, Done) and (not published or links):
        verdict = None  # true only when the routers say so as well
    if verdict is None and deployment.status == "progressing":
        trouble = observation.persistent_router_error or (
            None if published or decision.unpublish else observation.unpublished
        )
        verdict = failed_by_routers(trouble, links)
    if verdict is None and decision.full is not None:
        verdict = Failed("no_capacity", decision.full)
    if isinstance(verdict, Done):
        ledger.done(session, snapshot.service, deployment)
    elif isinstance(verdict, Failed) and deployment.status != "paused":
        _fail(session, snapshot, verdict, observation, ledger, patience)
    decision.again |= deployment.status != before


def _fail(
    session: Session, snapshot: Snapshot, failed: Failed, observation: Observation, ledger: Ledger, patience: float
) -> None:
    deployment = snapshot.deployment
    row = next((row for row in snapshot.instances if row.id == failed.instance), None)
    if row is not None and deployment is not None:
        changes = {
            "leaving_at": row.leaving_at or ledger.clock.now(),
            "failure_reason": row.failure_reason or failed.reason,
            "failure": row.failure or failed.message,
            "failed_deployment": deployment.id,
            "log_tail": row.log_tail or observation.log_tails.get(row.id),
        }
        if row.status != "failed":  # what the engine refused to start has been told
            ledger.instance(session, row, "failed", failed.message, deployment.id, changes)
        for name, value in changes.items():
            setattr(row, name, value)
    if deployment is not None:
        ledger.fail(session, deployment, failed, patience)
