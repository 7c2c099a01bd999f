"""API documents (docs/api.md) of rows and runtime status; a list takes a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, bindparam
from sqlmodel import Session, col, func, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from app.presenters.waiting import waiting_for
from services.clock import Clock, SystemClock, rfc3339
from services.redaction import redacted
from services.rollouts.state.operational_state import ServiceFacts, service_state
from services.rollouts.state.routing_config import displayed_revision
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.service_facts import read_facts
from services.rollouts.state.status import ACTIONS, TERMINAL, Status
from services.store.readonly import select_readonly
from services.store.tables import Deployment, Event, Instance, Revision, Service

DEPLOYMENTS = select_readonly(Deployment, without=("body",))
INSTANCES = select_readonly(Instance, without=("log_tail",))
SERVICES, REVISIONS = select_readonly(Service), select_readonly(Revision)
"""Queries for lists, built once: building a query takes as long as executing it."""
_SERVICES: BindParameter[Any] = bindparam("services", expanding=True)
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_RUNNING: BindParameter[Any] = bindparam("running", expanding=True)
_IS_PRESENT = (col(Service.name) == Revision.service) & (col(Service.revision) == Revision.number)
_PRESENT, _PRESENT_HASH = (
    query.join(Service, _IS_PRESENT).where(col(Service.name).in_(_SERVICES))
    for query in (select_readonly(Revision, without=("overrides",)), select_readonly(Revision, "service", "number", "hash"))
)
_NEWEST = select(func.max(Deployment.id)).where(col(Deployment.service).in_(_SERVICES)).group_by(Deployment.service)
_LAST = select_readonly(Deployment, "id", "service", "kind", "status", "reason", "message").where(
    col(Deployment.id).in_(_NEWEST)
)
_IS_SHOWN = or_(
    col(Instance.deployment).in_(_IDS),
    col(Instance.failed_deployment).in_(_IDS),
    col(Instance.service).in_(_RUNNING) & col(Instance.stopped_at).is_(None),
)
_SHOWN, _SHOWN_WITH_TAILS = (
    query.where(_IS_SHOWN).order_by(col(Instance.created_at), col(Instance.id))
    for query in (INSTANCES, select_readonly(Instance))
)
_NO_PROGRESS = {"desired": 0, "ready": 0, "serving": 0, "old_serving": 0, "draining": 0, "failed": 0}


@dataclass(frozen=True)
class PresenterContext:
    """Values that presenters need beside the rows.

    `public` is the gateway's `host:port` for people, `bridge` the gateway's address for services.
    """

    runtime_status: RuntimeStatus
    public: str
    bridge: str | None = None
    node: str | None = None
    clock: Clock = field(default_factory=SystemClock)


def present_deployment(session: Session, row: Deployment, presenter_context: PresenterContext) -> dict[str, Any]:
    """Return the document of a deployment, with the log tails of the instances that failed in it."""
    return _deployments(session, [row], presenter_context, tails=True)[0]


def present_deployments(
    session: Session, rows: Sequence[Deployment], presenter_context: PresenterContext
) -> list[dict[str, Any]]:
    """Return the documents of deployments, without log tails, which may have 64 KiB each."""
    return _deployments(session, rows, presenter_context, tails=False)


def present_instance(session: Session, row: Instance, presenter_context: PresenterContext) -> dict[str, Any]:
    return _instance(row, _present(session, _PRESENT_HASH, [row.service]).get(row.service), presenter_context, tail=True)


def present_instances(
    session: Session, rows: Sequence[Instance], presenter_context: PresenterContext
) -> list[dict[str, Any]]:
    """Return the documents of instances, without log tails."""
    present = _present(session, _PRESENT_HASH, {row.service for row in rows})
    return [_instance(row, present.get(row.service), presenter_context, tail=False) for row in rows]


def present_service(session: Session, row: Service, presenter_context: PresenterContext) -> dict[str, Any]:
    return present_services(session, [row], presenter_context)[0]


def present_services(session: Session, rows: Sequence[Service], presenter_context: PresenterContext) -> list[dict[str, Any]]:
    names = [row.name for row in rows]
    present = _present(session, _PRESENT, names)
    facts = read_facts(session, names, presenter_context.runtime_status.crash_looping())
    last = {row.service: row for row in session.exec(_LAST, params={"services": names})}
    return [_service(row, present.get(row.name), facts[row.name], last.get(row.name), presenter_context) for row in rows]


def present_revision(row: Revision, *, present: int | None) -> dict[str, Any]:
    """Return the document of a revision; `present` is the number of the service's current revision."""
    return {
        "service": row.service,
        "number": row.number,
        "present": row.number == present,
        "served": row.served,
        "image": row.image,
        "image_id": row.image_id,
        "port": row.port,
        "profile": row.profile,
        "hash": row.hash,
        "spec": redacted(row.spec),
        "overrides": redacted(row.overrides),
        "effective": redacted(row.effective),
        "healthcheck": redacted({"healthcheck": row.healthcheck})["healthcheck"],
        "deployment": row.deployment,
        "created_at": rfc3339(row.created_at),
    }


def present_event(row: Event, *, audit: bool = False) -> dict[str, Any]:
    """Return the document of an event; `audit` adds the client's address and the token's number."""
    actor = {"kind": row.actor_kind, "name": row.actor_name} if row.actor_kind else None
    view = {
        "id": row.id,
        "at": rfc3339(row.at),
        "type": row.type,
        "message": row.message,
        "deployment": row.deployment,
        "service": row.service,
        "instance": row.instance,
        "actor": actor,
        "data": row.data,
    }
    return {**view, "remote": row.remote, "token": row.actor_token} if audit else view


def _deployments(
    session: Session, rows: Sequence[Deployment], presenter_context: PresenterContext, *, tails: bool
) -> list[dict[str, Any]]:
    if not rows:
        return []
    running = _running(rows)
    params = {"ids": [row.id for row in rows], "running": list(running)}
    instances = session.exec(_SHOWN_WITH_TAILS if tails else _SHOWN, params=params).all()
    present = _present(session, _PRESENT_HASH, {row.service for row in rows})
    by_deployment = _by_deployment(rows, instances, running)
    return [_deployment(row, by_deployment[row.id], present.get(row.service), presenter_context, tails) for row in rows]


def _running(rows: Sequence[Deployment]) -> dict[str, int | None]:
    """Return service → its deployment in progress among `rows`."""
    return {row.service: row.id for row in rows if row.status not in TERMINAL and row.status != Status.PENDING}


def _by_deployment(
    rows: Sequence[Deployment], instances: Iterable[Instance], running: Mapping[str, int | None]
) -> dict[int | None, list[Instance]]:
    """Return deployment → its instances.

    These are the instances created in the deployment, those that failed in it and, while it is in progress, all
    instances of its service.
    """
    by_id: dict[int | None, list[Instance]] = {row.id: [] for row in rows}
    for instance in instances:
        ids = {instance.deployment, instance.failed_deployment}
        if instance.stopped_at is None:
            ids.add(running.get(instance.service))
        for id in ids & by_id.keys():
            by_id[id].append(instance)
    return by_id


def _deployment(
    row: Deployment,
    instances: Sequence[Instance],
    present: Revision | None,
    presenter_context: PresenterContext,
    tails: bool,
) -> dict[str, Any]:
    self = f"/deployments/{row.id}"
    return {
        "id": row.id,
        "service": row.service,
        "kind": row.kind,
        "status": row.status,
        "reason": row.reason,
        "message": _message(row, instances, presenter_context),
        "revision": row.revision,
        "from_revision": row.from_revision,
        "strategy": row.strategy,
        "profile": row.profile,
        "image": row.image,
        "image_id": row.image_id,
        "note": row.note,
        "created_by": {"kind": row.created_by_kind, "name": row.created_by_name},
        "created_at": rfc3339(row.created_at),
        "started_at": _time(row.started_at),
        "finished_at": _time(row.finished_at),
        "deadline_at": _time(row.deadline_at),
        "progress": {**_NO_PROGRESS, **row.progress},
        "traffic": row.traffic,
        "warnings": row.warnings,
        "retry_of": row.retry_of,
        "superseded_by": row.superseded_by,
        "group": row.group,
        "depends_on": row.depends_on,
        "instances": [
            _instance(instance, present, presenter_context, tail=tails and instance.failed_deployment == row.id)
            for instance in instances
        ],
        "actions": list(ACTIONS[Status(row.status)]),
        "links": {"self": self, "events": f"{self}/events", "page": f"/ui{self}"},
    }


def _message(row: Deployment, instances: Sequence[Instance], presenter_context: PresenterContext) -> str:
    """Return the deployment's message and, while it is in progress, the instance for which it waits."""
    if row.status in TERMINAL or row.status == Status.PENDING:
        return row.message
    now = presenter_context.clock.now()
    waiting = waiting_for(row, instances, presenter_context.runtime_status, now)
    return f"{row.message}; {waiting}" if waiting else row.message


def _instance(row: Instance, present: Revision | None, presenter_context: PresenterContext, *, tail: bool) -> dict[str, Any]:
    probe = presenter_context.runtime_status.probe(row.id) or row.last_probe
    return {
        "id": row.id,
        "service": row.service,
        "revision": displayed_revision(row, present),
        "slot": row.slot,
        "status": row.status,
        "address": row.address if row.port is None else f"{row.address}:{row.port}",
        "host_port": row.host_port,
        "container_id": row.container_id,
        "node": presenter_context.node,
        "in_flight": presenter_context.runtime_status.in_flight(row.id),
        "restarts": row.restarts,
        "created_at": rfc3339(row.created_at),
        "ready_at": _time(row.ready_at),
        "unhealthy_since": _time(row.unhealthy_since),
        "unhealthy_reason": row.unhealthy_reason,
        "exit_code": row.exit_code,
        "oom_killed": row.oom_killed,
        "last_probe": _probe(probe) if probe else None,
        "log_tail": row.log_tail if tail else None,
    }


def _service(
    row: Service,
    revision: Revision | None,
    facts: ServiceFacts,
    last: Deployment | None,
    presenter_context: PresenterContext,
) -> dict[str, Any]:
    spec = revision.spec if revision is not None else {}
    routed = revision is not None and revision.port is not None and not row.removed
    return {
        "name": row.name,
        "status": "removed" if row.removed else service_status(facts.desired, facts.serving),
        "state": service_state(facts),
        "url": _url(revision.effective, presenter_context) if revision is not None and routed else None,
        "internal_url": f"http://{presenter_context.bridge}:{row.internal_port}"
        if presenter_context.bridge and routed
        else None,
        "image": revision.image if revision is not None else None,
        "revision": row.revision,
        "profile": revision.profile if revision is not None else None,
        "replicas": row.replicas,
        "serving": facts.serving,
        "deployment": _last(last) if last is not None else None,
        "warnings": [*presenter_context.runtime_status.warnings(row.name), *_standing_warnings(revision)],
        "spec": redacted(spec),
        "created_at": rfc3339(row.created_at),
    }


def _standing_warnings(revision: Revision | None) -> list[dict[str, str]]:
    """Return the warnings that hold as long as the current revision does."""
    if revision is None or not revision.healthcheck.get("any_below_500"):
        return []
    text = "no healthcheck configured: any answer below 500 on / counts as healthy"
    return [{"code": "no_healthcheck", "message": text}]


def service_status(desired: int, serving: int) -> str:
    """Return the status of a service that was not removed.

    The status is `stopped` if no instances are desired: the service was scaled to 0 or never deployed.
    """
    if serving >= desired:
        return "serving" if desired or serving else "stopped"
    return "degraded" if serving else "down"


def _last(row: Deployment) -> dict[str, Any]:
    return {"id": row.id, "kind": row.kind, "status": row.status, "reason": row.reason, "message": row.message}


def _url(effective: Mapping[str, Any], presenter_context: PresenterContext) -> str | None:
    """Return the public URL of the service's first route; None if there are no routes."""
    routes = effective.get("routes") or []
    if not routes:
        return None
    host = routes[0].get("host")
    port = presenter_context.public.rpartition(":")[2]
    return f"http://{f'{host}:{port}' if host else presenter_context.public}{routes[0].get('path_prefix') or '/'}"


def _present(session: Session, query: SelectOfScalar[Revision], services: Iterable[str]) -> dict[str, Revision]:
    """Return service → its current revision, with the columns of `query`."""
    return {row.service: row for row in session.exec(query, params={"services": list(services)})}


def _probe(probe: Mapping[str, Any]) -> dict[str, Any]:
    at = probe.get("at")
    return {
        "ok": bool(probe.get("ok")),
        "status": probe.get("status"),
        "error": probe.get("error"),
        "at": rfc3339(at) if isinstance(at, int | float) else at,
    }


def _time(seconds: float | None) -> str | None:
    return rfc3339(seconds) if seconds is not None else None
