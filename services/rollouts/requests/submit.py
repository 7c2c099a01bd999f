"""Submission of commands and actions: each creates or changes a deployment in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from sqlmodel import Session, col, select

from services.actor import Actor
from services.clock import Clock
from services.engine.port import Engine
from services.idempotency import IdempotencyClaim, find_used_key, store_used_key
from services.rollouts.requests import commands
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.command import (
    Command,
    CommandTransaction,
    GroupMember,
    PrecheckContext,
    RequestContext,
)
from services.rollouts.requests.lookup import check_allowed, get_deployment
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.state.dependencies import group_of
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import Status
from services.rollouts.state.transitions import StateWriter
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.store.tables import Deployment, Revision

Action = Literal["pause", "resume", "abort"]


class Submitter:
    """Writes requests to the store, and notifies the controller and the listeners.

    Each method raises RequestError if the request is refused.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        engine: Engine,
        notifier: ChangeNotifier,
        enqueue: Callable[[str], None],
        rules: AdmissionRules,
        credentials: PullCredentials,
    ) -> None:
        """Initialise. `enqueue(service)` makes the controller reconcile the service."""
        self._store = store
        self._clock = clock
        self._engine = engine
        self._notifier = notifier
        self._enqueue = enqueue
        self._rules = rules
        self._credentials = credentials

    async def submit(self, command: Command, context: RequestContext) -> int:
        """Create the command's deployment and return its id.

        A repeated Idempotency-Key returns the id of the deployment that was created before. It is looked up before the
        precheck, so that it is answered even if the engine does not answer or its networks have changed.
        """
        claim = context.claim
        if claim is not None and (before := await self._store.read(lambda session: _created_with(session, claim))):
            return before
        await command.precheck(PrecheckContext(self._store, self._engine, self._rules, context.by))

        def transaction(session: Session) -> int:
            if before := _created_with(session, claim):
                return before
            id = command.apply(CommandTransaction(session, self._clock, self._rules, context.by))
            store_used_key(session, claim, self._clock.now(), deployment=id)
            self._credentials.put(id, context.registry_auth)
            return id

        try:
            id = await self._store.write(transaction)
        finally:
            await self._forget_credentials()
        self._notify(command.service)
        return id

    async def submit_group(self, members: Sequence[GroupMember], context: RequestContext) -> list[int]:
        """Create all deployments or none, each of which waits for those that it depends on.

        Returns the ids of the deployments, which share one `group`.
        """
        first = await self.submit(commands.deploy_group(members), context)
        ids = await self._store.read(lambda session: [row.id or 0 for row in group_of(session, first)])
        for member in members:
            self._notify(member.deploy_request.service)
        return ids

    async def apply_action(self, deployment: int, action: Action, by: Actor) -> None:
        """Pause, resume or abort a deployment.

        Raises RequestError: 404 `unknown_deployment`, 409 `not_in_that_state`.
        """

        def apply(session: Session) -> str:
            row = get_deployment(session, deployment)
            check_allowed(row, action)
            writer = StateWriter(self._clock, row.run)
            deadline = _progress_deadline(session, row)
            if action == "pause":
                writer.transition(session, row, Status.PAUSED, "paused; resume or abort", reason="user", actor=by)
                row.deadline_at = None
            elif action == "resume":
                row.reason = None
                writer.transition(session, row, Status.PROGRESSING, "resumed", actor=by)
                row.deadline_at = self._clock.now() + deadline
            elif row.status == Status.PENDING:
                message = "aborted before anything started"
                writer.transition(session, row, Status.ABORTED, message, reason="user", actor=by)
            else:
                writer.start_rollback(session, row, "aborted", "user", deadline, actor=by)
            session.add(row)
            return row.service

        service = await self._store.write(apply)
        await self._forget_credentials()
        self._notify(service)

    async def _forget_credentials(self) -> None:
        """Forget the credentials of deployments that will not pull any more.

        They were aborted or superseded before they began. A deployment that no read finds is not committed yet.
        """
        retained = self._credentials.deployments()
        if retained:
            not_pending = select(Deployment.id).where(col(Deployment.id).in_(retained), Deployment.status != Status.PENDING)
            for id in await self._store.read(lambda session: session.exec(not_pending).all()):
                self._credentials.forget(id or 0)

    def _notify(self, service: str) -> None:
        self._enqueue(service)
        self._notifier.notify()


def _created_with(session: Session, claim: IdempotencyClaim | None) -> int | None:
    """Return the id of the deployment that was created with the claimed key, or None."""
    row = find_used_key(session, claim)
    return row.deployment if row is not None else None


def _progress_deadline(session: Session, row: Deployment) -> float:
    number = row.revision or row.from_revision
    revision = session.get(Revision, (row.service, number)) if number is not None else None
    return revision_spec(revision).progress_deadline_seconds if revision is not None else 300.0
