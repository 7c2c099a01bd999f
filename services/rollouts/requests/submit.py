"""Submission of requests and actions.

Each creates or changes a deployment in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from pydantic import ValidationError
from sqlmodel import Session, col, select

from services.actor import Actor, IdempotencyClaim
from services.clock import Clock
from services.engine.port import Engine
from services.errors import FieldError, RequestError, prefix_fields
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.commands import (
    Asking,
    DeployRequest,
    GroupMember,
    RequestContext,
)
from services.rollouts.requests.lookup import check_allowed, deployment_of
from services.rollouts.requests.spec_errors import invalid
from services.rollouts.state.dependencies import group_of, next_group
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.status import Status
from services.rollouts.state.transitions import StateWriter
from services.spec import Route
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.store.tables import Deployment, IdempotencyKey, Revision

__all__ = ["Action", "DeployRequest", "RequestContext", "Submitter"]

Action = Literal["pause", "resume", "abort"]


class Submitter(Asking[int]):
    """Requests that are written. Each method returns the id of the deployment.

    A repeated Idempotency-Key returns the id of the deployment that was created before. Each method raises RequestError if
    the request is refused.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        engine: Engine,
        notifier: ChangeNotifier,
        enqueue: Callable[[str], None],
        rules: AdmissionRules,
        runtime_status: RuntimeStatus,
    ) -> None:
        """Initialise. `enqueue(service)` makes the controller reconcile the service."""
        super().__init__(store, clock, engine, rules)
        self._notifier = notifier
        self._enqueue = enqueue
        self._runtime_status = runtime_status

    async def deploy(self, deploy_request: DeployRequest, context: RequestContext) -> int:
        """Deploy, as in the base class, unless the Idempotency-Key was used before.

        The earlier deployment is returned even if the engine does not answer or its networks have changed.
        """
        before = await self._find_by_idempotency_key(context)
        return before if before is not None else await super().deploy(deploy_request, context)

    async def deploy_group(self, members: Sequence[GroupMember], context: RequestContext) -> list[int]:
        """Create all deployments or none, each of which waits for those that it depends on.

        Returns the ids of the deployments, which share one `group`. Raises RequestError 422 `invalid_spec` with all errors,
        each field prefixed by its service's name, and 409 as for a single deployment.
        """
        before = await self._find_by_idempotency_key(context)
        for member in members if before is None else ():
            with prefix_fields(member.deploy_request.service):
                await self._refuse_by_engine(member.deploy_request, context)
        first = await self._make(
            lambda session: self._accept_group(session, members, context), members[0].deploy_request.service, context
        )
        group = await self._store.read(lambda session: [row.id or 0 for row in group_of(session, first)])
        for member in members:
            self._notify(member.deploy_request.service)
        return group

    def _accept_group(self, session: Session, members: Sequence[GroupMember], context: RequestContext) -> int:
        made: dict[str, Deployment] = {}
        errors: list[FieldError] = []
        group, writer = next_group(session), StateWriter(self._clock, 0)
        for member in members:
            try:
                with prefix_fields(member.deploy_request.service):
                    row = session.get_one(Deployment, self._accept(session, member.deploy_request, context))
            except RequestError as error:
                if error.status != 422:
                    raise
                errors += error.errors
                continue
            known = {name: required for name, required in member.depends_on.items() if name in made}
            row.group = group
            row.depends_on = [{"deployment": made[name].id, "required": required} for name, required in known.items()]
            if known:
                row.message = f"waits for {', '.join(known)}"
            for warning in member.warnings:
                writer.warn(session, row, "compose", warning)
            made[member.deploy_request.service] = row
        errors += _shared_routes(members)
        if errors:
            raise invalid(errors)
        return next(iter(made.values())).id or 0

    async def apply_action(self, deployment: int, action: Action, by: Actor) -> None:
        """Pause, resume or abort a deployment.

        Raises RequestError: 404 `unknown_deployment`, 409 `not_in_that_state`.
        """

        def apply(session: Session) -> str:
            row = deployment_of(session, deployment)
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
                message = "aborted before anything was started"
                writer.transition(session, row, Status.ABORTED, message, reason="user", actor=by)
            else:
                writer.start_rollback(session, row, "aborted", "user", deadline, actor=by)
            session.add(row)
            return row.service

        service = await self._store.write(apply)
        await self._forget_credentials()
        self._notify(service)

    async def _make(self, make: Callable[[Session], int], service: str, context: RequestContext) -> int:
        """Return the deployment of a used Idempotency-Key, or create one and claim the key.

        All of it happens in one transaction.
        """

        def transaction(session: Session) -> int:
            before = _find_by_idempotency_key(session, context.claim)
            if before is not None:
                return before
            made = make(session)
            if context.claim is not None:
                key, token = context.claim.key, context.claim.token
                now = self._clock.now()
                session.merge(
                    IdempotencyKey(
                        key=key, token=token, fingerprint=context.claim.fingerprint, deployment=made, created_at=now
                    )
                )
            if context.registry_auth is not None:
                self._runtime_status.registry_auth[made] = context.registry_auth
            return made

        try:
            made = await self._store.write(transaction)
        finally:
            await self._forget_credentials()
        self._notify(service)
        return made

    async def _find_by_idempotency_key(self, context: RequestContext) -> int | None:
        """Return the deployment of the request's Idempotency-Key, or None. Without a key no read is needed."""
        return (
            await self._store.read(lambda session: _find_by_idempotency_key(session, context.claim))
            if context.claim is not None
            else None
        )

    async def _forget_credentials(self) -> None:
        """Forget the credentials of deployments that will not pull any more.

        They were aborted or superseded before they began, or were never written.
        """
        retained = self._runtime_status.registry_auth
        if retained:
            pending = select(Deployment.id).where(col(Deployment.id).in_(retained), Deployment.status == Status.PENDING)
            still = await self._store.read(lambda session: set(session.exec(pending).all()))
            for id in retained.keys() - still:
                retained.pop(id, None)

    def _notify(self, service: str) -> None:
        self._enqueue(service)
        self._notifier.notify()


def _shared_routes(members: Sequence[GroupMember]) -> list[FieldError]:
    """Return errors for routes that two members of a group share.

    Values that are no routes are skipped: they are refused with the rest of their spec.
    """
    taken: dict[tuple[str, str], str] = {}
    errors: list[FieldError] = []
    for member in members:
        name, routes = member.deploy_request.service, member.deploy_request.fields.get("routes")
        for number, route in enumerate(routes if isinstance(routes, list) else ()):
            with suppress(ValidationError):
                key = Route.model_validate(route).key
                if taken.setdefault(key, name) != name:
                    errors.append(FieldError(f"{name}.routes.{number}", f'service "{taken[key]}" has this route already'))
    return errors


def _find_by_idempotency_key(session: Session, claim: IdempotencyClaim | None) -> int | None:
    """Return the deployment that the claimed key was used for, or None.

    Raises RequestError 422 `idempotency_key_reused` if the key was used for another request.
    """
    if claim is None:
        return None
    row = session.get(IdempotencyKey, (claim.key, claim.token))
    if row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        detail = "this Idempotency-Key was used for another request; take a new key, or send the same request"
        raise RequestError(
            422, "idempotency_key_reused", detail, [FieldError("Idempotency-Key", "was used for another request")]
        )
    return row.deployment


def _progress_deadline(session: Session, row: Deployment) -> float:
    number = row.revision or row.from_revision
    revision = session.get(Revision, (row.service, number)) if number is not None else None
    return revision_spec(revision).progress_deadline_seconds if revision is not None else 300.0
