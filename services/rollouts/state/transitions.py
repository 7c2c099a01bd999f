"""Changes of deployments and instances, each written with its event in one transaction.

A write for a deployment is fenced by the number of the process that leased it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlmodel import Session

from services.actor import Actor
from services.clock import Clock
from services.rollouts.planner.steps import Failed, Progress
from services.rollouts.state.status import TERMINAL, Kind, Status, check_transition
from services.store.events import append_event
from services.store.tables import Deployment, Event, Instance, Revision, Service

DIED: Mapping[str, Any] = MappingProxyType({"died": True})
"""Event data that counts the event as a crash of its instance (crash_history.py)."""


class LeaseLost(Exception):
    """The error for a deployment that a newer process of Sluice has leased.

    Nothing that the older process decided may be written.
    """


class StateWriter:
    """Writer of status changes and events in the caller's transaction.

    `fencing_number` is that of this process.
    """

    def __init__(self, clock: Clock, fencing_number: int) -> None:
        self.clock = clock
        self.fencing_number = fencing_number
        self.writes = 0
        """Number of events written. A caller compares it to find out whether there is something to notify."""

    def lease(self, deployment: Deployment) -> None:
        """Lease the deployment to this process. Raises LeaseLost if a newer process holds it."""
        if deployment.run > self.fencing_number:
            raise LeaseLost(f"deployment {deployment.id} is leased by the newer process {deployment.run}")
        deployment.run = self.fencing_number

    def transition(
        self, session: Session, deployment: Deployment, status: Status, message: str, *, reason: str | None = None,
        actor: Actor | None = None,
    ) -> None:  # fmt: skip
        """Change the deployment's status and record the event.

        Raises InvalidTransition if the table of transitions does not allow the change.
        """
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
        """Handle a failure of the deployment: start a rollback, or pause if `failure_action` is "pause".

        A failure during a rollback ends the deployment as `rollback_failed`. With "pause", a deployment that is paused
        already stays paused.
        """
        if deployment.status == Status.ROLLING_BACK:
            self.transition(session, deployment, Status.ROLLBACK_FAILED, f"rollback failed too: {failed.message}")
        elif deployment.failure_action == "pause" and deployment.status == Status.PAUSED:
            return  # already paused until a user resumes or aborts it
        elif deployment.failure_action == "pause" and deployment.status != Status.PENDING:
            message = f"{failed.message}; resume to retry, or abort to roll back"
            self.transition(session, deployment, Status.PAUSED, message, reason=failed.reason)
            deployment.deadline_at = None
        else:
            self.start_rollback(session, deployment, failed.message, failed.reason, progress_deadline)

    def start_rollback(
        self, session: Session, deployment: Deployment, message: str, reason: str, progress_deadline: float,
        actor: Actor | None = None,
    ) -> None:  # fmt: skip
        """Start the rollback to the revision that served before.

        The deadline is `progress_deadline` seconds from now.
        """
        self.transition(session, deployment, Status.ROLLING_BACK, message, reason=reason, actor=actor)
        deployment.milestone = 0
        deployment.deadline_at = self.clock.now() + progress_deadline

    def complete(self, session: Session, service: Service, deployment: Deployment) -> None:
        """End a deployment whose desired state is reached, or finish its rollback.

        The message is true at the moment when it is written.
        """
        if deployment.status == Status.ROLLING_BACK:
            self._finish_rollback(session, service, deployment)
            return
        service.replicas = deployment.replicas if deployment.replicas is not None else service.replicas
        if deployment.kind == Kind.REMOVE:
            service.removed, service.revision = True, None
            service.replicas = deployment.from_replicas or service.replicas
            message = "removed; the history stays"
        else:
            service.revision = deployment.revision
            revision = session.get_one(Revision, (service.name, deployment.revision))
            revision.served = True
            message = f"{deployment.replicas} of {deployment.replicas} instances serve"
            session.add(revision)
        session.add(service)
        self.transition(session, deployment, Status.SUCCEEDED, message)

    def supersede(self, session: Session, deployment: Deployment, by: int) -> None:
        """End the deployment because deployment `by` replaces it."""
        deployment.superseded_by = by
        message = f"deployment {by} took over"
        self.transition(session, deployment, Status.SUPERSEDED, message, reason="newer_revision")

    def progress(
        self, session: Session, deployment: Deployment, progress: Progress, traffic: list[dict[str, Any]],
        progress_deadline: float, waits_for: str = "",
    ) -> bool:  # fmt: skip
        """Record the counts and the blocker `waits_for`. Return False if nothing changed.

        A higher milestone extends the deadline to `progress_deadline` seconds from now.
        """
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
        """Add a warning to the deployment, unless the deployment has it already."""
        if {"code": code, "message": message} in deployment.warnings:
            return
        deployment.warnings = [*deployment.warnings, {"code": code, "message": message}]
        session.add(deployment)
        self.record_event(session, "warning", message, deployment=deployment, data={"code": code})

    def set_instance_status(
        self, session: Session, row: Instance, status: str, message: str, deployment: int | None,
        changes: Mapping[str, Any] = MappingProxyType({}), *, data: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """Write an instance's status with its event `instance_<status>`.

        The status of an instance that failed stays `failed`, even if other events follow. `changes` are other columns to
        set. `data` is added to the event's data: DIED marks the one event that counts as a crash (crash_history.py).
        """
        for name, value in changes.items():
            setattr(row, name, value)
        if row.status != "failed":
            row.status = status
        self.record_instance_event(session, row, f"instance_{status}", message, deployment, data=data)

    def record_instance_event(
        self, session: Session, row: Instance, event_type: str, message: str, deployment: int | None, *,
        data: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """Write an instance's row with an event; its status stays."""
        session.add(row)
        self.writes += 1
        append_event(
            session, self.clock.now(), event_type, message, deployment=deployment, service=row.service,
            instance=row.id,
            data={"revision": row.revision, "slot": row.slot, "status": row.status, **data},
        )  # fmt: skip

    def record_event(
        self, session: Session, event_type: str, message: str, *, deployment: Deployment, data: dict[str, Any],
        actor: Actor | None = None,
    ) -> Event:  # fmt: skip
        """Append an event of the deployment; with an actor, the event is part of the audit too."""
        who = actor.columns() if actor else {}
        self.writes += 1
        full = {"status": deployment.status, **data}
        return append_event(
            session, self.clock.now(), str(event_type), message, deployment=deployment.id, service=deployment.service,
            data=full, **who,
        )  # fmt: skip

    def _finish_rollback(self, session: Session, service: Service, deployment: Deployment) -> None:
        first = deployment.from_revision is None
        state = "serves again" if deployment.from_replicas else "is current again, with 0 instances"
        back = "nothing is left running" if first else f"revision {deployment.from_revision} {state}"
        message = f"{deployment.message}; {back}"
        if deployment.reason == "user":
            self.transition(session, deployment, Status.ABORTED, message)
        else:
            self.transition(session, deployment, Status.FAILED if first else Status.ROLLED_BACK, message)


def _counted(progress: Progress) -> str:
    """Return the counts as text, without those that are 0."""
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
