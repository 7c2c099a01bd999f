"""Apply: every change of a deployment or an instance, each as one transaction with its event.

A write for a deployment is guarded by the number of the run that leased it (design.md §4).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlmodel import Session, col, select

from services.caller import Actor
from services.clock import Clock
from services.rollouts.planner.steps import Failed, Progress
from services.rollouts.state.status import TERMINAL, Kind, Status, check_transition
from services.store.events import append_event
from services.store.tables import Deployment, Event, Instance, Revision, Service


class LeaseLost(Exception):
    """A newer run of Sluice holds the deployment now: nothing that this one decided may be written."""


class StateWriter:
    """Writes inside the caller's transaction. `run` is this run's number."""

    def __init__(self, clock: Clock, run: int) -> None:
        self.clock = clock
        self.run = run
        self.writes = 0
        """How many events it has written: whether there is news."""

    def lease(self, deployment: Deployment) -> None:
        """This run holds it from now on."""
        if deployment.run > self.run:
            raise LeaseLost(f"deployment {deployment.id} is held by run {deployment.run}")
        deployment.run = self.run

    def transition(
        self, session: Session, deployment: Deployment, status: Status, message: str, *, reason: str | None = None,
        actor: Actor | None = None,
    ) -> None:  # fmt: skip
        """Move to `status` by the one table of transitions; NotInThatState otherwise."""
        check_transition(deployment.status, status)
        now = self.clock.now()
        deployment.status, deployment.message = status, message
        if reason is not None:
            deployment.reason = reason
        if status in (Status.PROGRESSING, Status.ROLLING_BACK):
            deployment.turned_at = now
        if status in TERMINAL:
            deployment.finished_at, deployment.deadline_at = now, None
        session.add(deployment)
        self.record_event(session, status, message, deployment=deployment, data={"reason": deployment.reason}, actor=actor)

    def fail(self, session: Session, deployment: Deployment, failed: Failed, progress_deadline: float) -> None:
        """It will not succeed: go back, or pause when that was asked for; going back that fails is the end."""
        if deployment.status == Status.ROLLING_BACK:
            self.transition(session, deployment, Status.ROLLBACK_FAILED, f"going back failed as well: {failed.message}")
        elif deployment.failure_action == "pause" and deployment.status == Status.PAUSED:
            return  # it waits for somebody already
        elif deployment.failure_action == "pause" and deployment.status != Status.PENDING:
            message = f"{failed.message}; resume to try again, or abort to go back"
            self.transition(session, deployment, Status.PAUSED, message, reason=failed.reason)
            deployment.deadline_at = None
        else:
            self.start_rollback(session, deployment, failed.message, failed.reason, progress_deadline)

    def start_rollback(
        self, session: Session, deployment: Deployment, message: str, reason: str, progress_deadline: float,
        actor: Actor | None = None,
    ) -> None:  # fmt: skip
        """Back to what served before."""
        self.transition(session, deployment, Status.ROLLING_BACK, message, reason=reason, actor=actor)
        deployment.milestone = 0
        deployment.deadline_at = self.clock.now() + progress_deadline

    def complete(self, session: Session, service: Service, deployment: Deployment) -> None:
        """What was wanted serves: the last word, which is true when it is written."""
        if deployment.status == Status.ROLLING_BACK:
            self._finish_rollback(session, service, deployment)
            return
        service.replicas = deployment.replicas if deployment.replicas is not None else service.replicas
        if deployment.kind == Kind.REMOVE:
            service.removed, service.revision = True, None
            service.replicas = deployment.from_replicas or service.replicas
            message = "removed; its history stays"
        else:
            service.revision = deployment.revision
            revision = session.get_one(Revision, (service.name, deployment.revision))
            revision.served = True
            message = f"{deployment.replicas} of {deployment.replicas} instances serve"
            session.add(revision)
        session.add(service)
        self.transition(session, deployment, Status.SUCCEEDED, message)

    def supersede(self, session: Session, deployment: Deployment, by: int) -> None:
        """A newer one takes over."""
        deployment.superseded_by = by
        message = f"deployment {by} took over"
        self.transition(session, deployment, Status.SUPERSEDED, message, reason="newer_revision")

    def unchanged(self, session: Session, deployment: Deployment) -> None:
        self.transition(session, deployment, Status.SUCCEEDED, "nothing to change", reason="unchanged")

    def progress(
        self, session: Session, deployment: Deployment, progress: Progress, traffic: list[dict[str, Any]],
        progress_deadline: float, waits_for: str = "",
    ) -> bool:  # fmt: skip
        """Keep the counts, and what is waited for; getting further extends the deadline. False when nothing changed."""
        counts = {
            "desired": progress.desired, "ready": progress.ready, "serving": progress.serving,
            "old_serving": progress.old_serving, "draining": progress.draining, "failed": progress.failed,
        }  # fmt: skip
        if progress.milestone > deployment.milestone and deployment.deadline_at is not None:
            deployment.milestone = progress.milestone
            deployment.deadline_at = self.clock.now() + progress_deadline
        message = deployment.message
        if deployment.status == Status.PROGRESSING:
            new = "new " if deployment.kind != Kind.SCALE else ""
            waiting = f"; {waits_for}" if waits_for else ""
            message = f"{progress.serving} of {progress.desired} {new}instances serve{waiting}"
        if (deployment.progress, deployment.traffic, deployment.message) == (counts, traffic, message):
            return False
        deployment.progress, deployment.traffic, deployment.message = counts, traffic, message
        session.add(deployment)
        self.record_event(
            session, "progress", _counted(progress), deployment=deployment, data={**counts, "traffic": traffic}
        )
        return True

    def warn(self, session: Session, deployment: Deployment, code: str, message: str) -> None:
        """A warning that stays with the deployment."""
        if {"code": code, "message": message} in deployment.warnings:
            return
        deployment.warnings = [*deployment.warnings, {"code": code, "message": message}]
        session.add(deployment)
        self.record_event(session, "warning", message, deployment=deployment, data={"code": code})

    def set_instance_status(
        self, session: Session, row: Instance, status: str, message: str, deployment: int | None,
        changes: Mapping[str, Any] = MappingProxyType({}), *, event: str | None = None, died: bool = False,
    ) -> None:  # fmt: skip
        """Write an instance's next status with its event, `instance_<status>` unless it is named. One that failed stays
        `failed`, whatever else happens to it. `died`: by itself, and this is the event that counts it (dying.py)."""
        for name, value in changes.items():
            setattr(row, name, value)
        if row.status != "failed":
            row.status = status
        session.add(row)
        self.writes += 1
        append_event(
            session, self.clock.now(), event or f"instance_{status}", message, deployment=deployment, service=row.service,
            instance=row.id,
            data={"revision": row.revision, "slot": row.slot, "status": row.status, **({"died": True} if died else {})},
        )  # fmt: skip

    def record_event(
        self, session: Session, type: str, message: str, *, deployment: Deployment, data: dict[str, Any],
        actor: Actor | None = None,
    ) -> Event:  # fmt: skip
        """An event of a deployment; with an actor it is in the audit as well."""
        who = actor.columns() if actor else {}
        self.writes += 1
        full = {"status": deployment.status, **data}
        return append_event(
            session, self.clock.now(), str(type), message, deployment=deployment.id, service=deployment.service,
            data=full, **who,
        )  # fmt: skip

    def _finish_rollback(self, session: Session, service: Service, deployment: Deployment) -> None:
        first = deployment.from_revision is None
        back = "nothing is left running" if first else f"revision {deployment.from_revision} serves again"
        message = f"{deployment.message}; {back}"
        if deployment.reason == "user":
            self.transition(session, deployment, Status.ABORTED, message)
        else:
            self.transition(session, deployment, Status.FAILED if first else Status.ROLLED_BACK, message)


def next_pending(session: Session, service: str) -> Deployment | None:
    """The one that waits longest, if nothing runs."""
    running = select(Deployment.id).where(
        Deployment.service == service, col(Deployment.status).in_(("progressing", "paused", "rolling_back"))
    )
    if session.exec(running).first() is not None:
        return None
    return session.exec(
        select(Deployment).where(Deployment.service == service, Deployment.status == "pending").order_by(col(Deployment.id))
    ).first()


def _counted(progress: Progress) -> str:
    """The counts in words, without those that are 0."""
    others = {
        "ready": progress.ready - progress.serving,
        "old serving": progress.old_serving,
        "draining": progress.draining,
        "failed": progress.failed,
    }
    parts = [
        f"{progress.serving} of {progress.desired} serve",
        *(f"{count} {name}" for name, count in others.items() if count > 0),
    ]
    return ", ".join(parts)
