"""Requests that create a deployment: each one is checked completely before anything is written."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Literal, TypeVar

from sqlmodel import Session, col, func, select

from services.actor import Actor, IdempotencyClaim
from services.clock import Clock
from services.engine.port import Engine, EngineError
from services.errors import FieldError, RequestError
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.lookup import (
    check_allowed,
    deployment_of,
    get_current_revision,
    get_service,
    next_id,
    rollback_target,
)
from services.rollouts.requests.ownership import unmanaged_volume
from services.rollouts.requests.spec_errors import invalid
from services.rollouts.requests.validation import (
    current_revision,
    effective_replicas,
    exclusive_volume_conflict,
    existing_unmanaged_volume,
    stored_errors,
    validate,
)
from services.rollouts.state.id_floors import first_free_revision
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import OF_PRESENT, TERMINAL, Kind, Status
from services.rollouts.state.transitions import StateWriter
from services.spec import SERVICE_NAME
from services.store.database import Store
from services.store.events import append_event
from services.store.tables import Deployment, Revision, Service

T = TypeVar("T")
FIRST_INTERNAL_PORT = 20001


@dataclass(frozen=True)
class DeployRequest:
    """A POST /deployments, parsed as JSON. `fields` are the spec fields as given, not yet checked."""

    service: str
    fields: dict[str, Any]
    mode: Literal["merge", "replace"] = "merge"
    profile_named: bool = False
    profile: str | None = None
    note: str | None = None
    expected_revision: int | None = None
    """The revision that the caller expects to be current; 0 if the caller expects no such service."""


@dataclass(frozen=True)
class GroupMember:
    """One deployment of a group that is requested together.

    `depends_on` maps the services of earlier members to whether each is required. `warnings` are stored with the deployment.
    """

    deploy_request: DeployRequest
    depends_on: Mapping[str, bool] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class RequestContext:
    """The author of a request, its idempotency claim, and its credentials for the pull.

    The credentials are kept in memory only.
    """

    by: Actor
    claim: IdempotencyClaim | None = None
    registry_auth: str | None = field(default=None, repr=False)


class Asking(ABC, Generic[T]):
    """The requests that create a deployment, one method for each kind.

    Each method raises RequestError, or returns the result of `_make`.
    """

    def __init__(self, store: Store, clock: Clock, engine: Engine, rules: AdmissionRules) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._rules = rules

    @abstractmethod
    async def _make(self, make: Callable[[Session], int], service: str, context: RequestContext) -> T:
        """Call `make` in a transaction and return the result of the request.

        `make` checks the request, inserts its deployment in the given transaction, and returns the deployment's id. `make`
        may be called again in another transaction.
        """

    async def deploy(self, deploy_request: DeployRequest, context: RequestContext) -> T:
        """Request a deployment of a new or changed spec.

        Raises RequestError: 422 `invalid_spec` (its errors name the fields), 409 `revision_conflict`, 409
        `deployment_in_progress`.
        """
        await self._refuse_by_engine(deploy_request, context)
        return await self._make(
            lambda session: self._accept(session, deploy_request, context), deploy_request.service, context
        )

    async def scale(self, service: str, replicas: int, context: RequestContext) -> T:
        """Request another number of replicas.

        Raises RequestError: 404 `unknown_service`, 422 `invalid_spec` (for instance if the volumes allow one instance only).
        """

        def make(session: Session) -> int:
            present = get_current_revision(session, service)
            if why := exclusive_volume_conflict(revision_spec(present), replicas):
                raise invalid([FieldError("replicas", why)])
            if replicas > session.get_one(Service, service).replicas:
                self._refuse_disallowed(session, present, present, context, replicas)
            row = self._deployment_for(session, present, Kind.SCALE)
            row.replicas = replicas
            return self._insert(session, row, context)

        return await self._make(make, service, context)

    async def rollback(self, service: str, to_revision: int | None, context: RequestContext) -> T:
        """Request a rollback to `to_revision`, or else to the newest earlier revision that served.

        Raises RequestError: 404 `unknown_service`, 422 `unknown_revision`, 409 `no_rollback_target`.
        """

        def make(session: Session) -> int:
            present = get_current_revision(session, service)
            target = rollback_target(session, present, to_revision)
            self._refuse_disallowed(session, target, present, context)
            return self._insert(session, self._deployment_for(session, target, Kind.ROLLBACK), context)

        return await self._make(make, service, context)

    async def restart(self, service: str, context: RequestContext) -> T:
        """Request the replacement of all instances by new ones of the same revision.

        Raises RequestError 404 `unknown_service`.
        """

        def make(session: Session) -> int:
            present = get_current_revision(session, service)
            self._refuse_disallowed(session, present, present, context)
            return self._insert(session, self._deployment_for(session, present, Kind.RESTART), context)

        return await self._make(make, service, context)

    async def remove(self, service: str, context: RequestContext) -> T:
        """Request the removal of a service, which may be one whose first deployment never succeeded.

        Raises RequestError 404 `unknown_service`.
        """

        def make(session: Session) -> int:
            known = get_service(session, service)
            row = Deployment(service=service, kind=Kind.REMOVE, created_at=self._clock.now(), replicas=0)
            row.revision = known.revision
            return self._insert(session, row, context)

        return await self._make(make, service, context)

    async def retry(self, deployment: int, context: RequestContext) -> T:
        """Request again a deployment that ended without success.

        Raises RequestError: 404 `unknown_deployment`, 409 `not_in_that_state`.
        """

        def make(session: Session) -> int:
            before = deployment_of(session, deployment)
            check_allowed(before, "retry")
            if before.kind == Kind.REMOVE:
                get_service(session, before.service)
            elif before.kind != Kind.DEPLOY:
                get_current_revision(session, before.service)
            names = (
                "service",
                "kind",
                "body",
                "mode",
                "profile_named",
                "profile",
                "on_conflict",
                "replicas",
                "strategy",
                "image",
            )
            row = Deployment(**{name: getattr(before, name) for name in names}, created_at=self._clock.now())
            row.note, row.retry_of = before.note, before.id
            if before.kind != Kind.DEPLOY:
                row.revision, row.image_id, row.failure_action = before.revision, before.image_id, before.failure_action
                if before.kind != Kind.REMOVE:
                    present = get_current_revision(session, before.service)
                    revision = session.get_one(Revision, (before.service, before.revision))
                    if before.kind in OF_PRESENT:
                        revision = present
                    self._refuse_disallowed(session, revision, present, context, before.replicas)
            else:
                service = session.get(Service, before.service)
                row.bound_to = _bounds(context)
                validate(session, self._rules, current_revision(session, service), row)
            return self._insert(session, row, context)

        before = await self._store.read(lambda session: deployment_of(session, deployment))
        if before.kind == Kind.DEPLOY:
            mode: Literal["merge", "replace"] = "replace" if before.mode == "replace" else "merge"
            again = DeployRequest(before.service, before.body, mode, before.profile_named, before.profile)
            await self._refuse_by_engine(again, context)
        return await self._make(make, before.service, context)

    def _refuse_disallowed(
        self, session: Session, revision: Revision, present: Revision, context: RequestContext, replicas: int | None = None
    ) -> None:
        """Raise RequestError 422 `invalid_spec` for a stored spec that cannot come into force again.

        The spec is checked for `replicas` instances, by default for the service's size.
        """
        size = replicas if replicas is not None else effective_replicas(session, revision.service)
        if errors := stored_errors(session, self._rules, context.by.grant, revision, present, size):
            raise invalid(errors)

    def _accept(self, session: Session, deploy_request: DeployRequest, context: RequestContext) -> int:
        """Check a deploy request, insert its deployment, and return the deployment's id."""
        if not re.fullmatch(SERVICE_NAME, deploy_request.service):
            why = "must be a DNS label of at most 40 characters (a-z, 0-9, -) that begins with a letter"
            raise invalid([FieldError("service", why)])
        service = session.get(Service, deploy_request.service)
        present = current_revision(session, service)
        _check_expected_revision(deploy_request, service, present)
        row = Deployment(
            service=deploy_request.service,
            kind=Kind.DEPLOY,
            body=deploy_request.fields,
            mode=deploy_request.mode,
            profile_named=deploy_request.profile_named,
            profile=deploy_request.profile,
            note=deploy_request.note,
            bound_to=_bounds(context),
            created_at=self._clock.now(),
        )
        validated = validate(session, self._rules, present, row)
        row.on_conflict = str(validated.spec.on_conflict)
        row.image = validated.spec.image
        row.strategy = "recreate" if validated.spec.recreates else "rolling"
        row.replicas = (
            validated.replicas if validated.replicas is not None else effective_replicas(session, deploy_request.service)
        )
        if service is None:
            session.add(self._new_service(session, deploy_request.service))
            session.flush()
        return self._insert(session, row, context)

    def _insert(self, session: Session, row: Deployment, context: RequestContext) -> int:
        """Insert the new deployment and apply `on_conflict` to the other deployments of the service.

        Pending deployments are superseded, or the new deployment waits, or RequestError 409 `deployment_in_progress` is
        raised.
        """
        others = session.exec(
            select(Deployment).where(
                Deployment.service == row.service, col(Deployment.status).not_in([str(status) for status in TERMINAL])
            )
        ).all()
        if others and row.on_conflict == "reject" and row.kind != Kind.REMOVE:
            detail = f"deployment {others[0].id} of {row.service} is {others[0].status}, and on_conflict is reject"
            raise RequestError(409, "deployment_in_progress", detail)
        row.id = next_id(session)
        row.created_by_kind, row.created_by_name, row.bound_to = context.by.kind, context.by.name, _bounds(context)
        row.message = "waits for its turn" if others else "accepted"
        session.add(row)
        session.flush()
        writer = StateWriter(self._clock, 0)
        writer.record_event(
            session,
            "created",
            f"{row.kind} asked for by {context.by.name}",
            deployment=row,
            data={"kind": row.kind},
            actor=context.by,
        )
        if row.on_conflict == "supersede" or row.kind == Kind.REMOVE:
            for other in others:
                if other.status == Status.PENDING:
                    writer.supersede(session, other, row.id)
        return row.id

    def _deployment_for(self, session: Session, revision: Revision, kind: Kind) -> Deployment:
        """Return a deployment of an unchanged revision, at the service's size."""
        spec = revision_spec(revision)
        return Deployment(
            service=revision.service,
            kind=kind,
            revision=revision.number,
            replicas=effective_replicas(session, revision.service),
            profile=revision.profile,
            on_conflict=spec.on_conflict,
            strategy="recreate" if spec.recreates else "rolling",
            failure_action=spec.failure_action,
            image=revision.image,
            image_id=revision.image_id,
            created_at=self._clock.now(),
        )

    def _new_service(self, session: Session, name: str) -> Service:
        highest = session.exec(select(func.max(Service.internal_port))).one()
        taken = set(session.exec(select(Revision.port).where(col(Revision.port) > (highest or FIRST_INTERNAL_PORT - 1))))
        port = next(port for port in count(max(FIRST_INTERNAL_PORT, (highest or 0) + 1)) if port not in taken)
        now = self._clock.now()
        append_event(session, now, "service_created", f"{name} is known from now on", service=name)
        return Service(name=name, internal_port=port, created_at=now, next_revision=first_free_revision(session, name))

    async def _refuse_by_engine(self, deploy_request: DeployRequest, context: RequestContext) -> None:
        """Raise RequestError 422 for networks that the engine does not have or reserves.

        For an author with a bound token, also raise it for volumes that the engine has but no service names.
        """
        await self._refuse_unknown_networks(deploy_request.fields)
        if context.by.grant is not None:
            await self._refuse_unmanaged_volumes(deploy_request)

    async def _refuse_unmanaged_volumes(self, deploy_request: DeployRequest) -> None:
        wanted = Deployment(
            service=deploy_request.service,
            kind=Kind.DEPLOY,
            body=deploy_request.fields,
            mode=deploy_request.mode,
            profile_named=deploy_request.profile_named,
            profile=deploy_request.profile,
            created_at=self._clock.now(),
        )
        try:
            there = await existing_unmanaged_volume(self._store, self._engine, self._rules, wanted)
        except EngineError as error:
            raise RequestError(503, "engine_unavailable", f"the volumes cannot be checked now: {error}") from error
        if there is not None:
            raise invalid([FieldError("volumes", unmanaged_volume(there))])

    async def _refuse_unknown_networks(self, fields: dict[str, Any]) -> None:
        profiles = fields.get("profiles")
        layers = [fields, *(profiles.values() if isinstance(profiles, dict) else ())]
        lists = [layer.get("networks") for layer in layers if isinstance(layer, dict)]
        names = tuple({name for named in lists if isinstance(named, list) for name in named if isinstance(name, str)})
        if not names:
            return
        try:
            missing = await self._engine.networks_exist(names)
        except EngineError as error:
            raise RequestError(503, "engine_unavailable", f"the networks cannot be checked now: {error}") from error
        if missing:
            why = "of those that services may join (not host, none, or the instances' network of a Sluice)"
            raise invalid([FieldError("networks", f'the engine has no network "{missing[0][:128]}" {why}')])


def _bounds(context: RequestContext) -> dict[str, list[str]] | None:
    return context.by.grant.to_json() if context.by.grant is not None else None


def _check_expected_revision(deploy_request: DeployRequest, service: Service | None, present: Revision | None) -> None:
    """Raise RequestError 409 `revision_conflict` if the service is not at the expected revision."""
    if deploy_request.expected_revision is None:
        return
    there = service is not None and not service.removed
    if deploy_request.expected_revision == 0 and there:
        raise RequestError(409, "revision_conflict", f'expected no service "{deploy_request.service}", but there is one')
    if deploy_request.expected_revision and deploy_request.expected_revision != (present.number if present else None):
        now = f"at revision {present.number}" if present else "not deployed"
        raise RequestError(
            409,
            "revision_conflict",
            f"expected revision {deploy_request.expected_revision}, but {deploy_request.service} is {now}",
        )
