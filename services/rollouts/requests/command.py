"""Commands as data: what a request checks and changes, before it is submitted or previewed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlmodel import Session

from services.actor import Actor
from services.clock import Clock
from services.engine.port import Engine
from services.idempotency import IdempotencyClaim
from services.rollouts.requests.admission import AdmissionRules
from services.store.database import Store

MergeMode = Literal["merge", "replace"]


@dataclass(frozen=True)
class PrecheckContext:
    """The parts that a precheck uses. No transaction is open, so the engine may be called."""

    store: Store
    engine: Engine
    rules: AdmissionRules
    by: Actor


@dataclass(frozen=True)
class CommandTransaction:
    """The transaction in which a command is applied, with the author of the request."""

    session: Session
    clock: Clock
    rules: AdmissionRules
    by: Actor

    @property
    def bound_to(self) -> dict[str, list[str]] | None:
        """The author's grant as a deployment stores it; None if the author's token is not bound."""
        return self.by.grant.to_json() if self.by.grant is not None else None


async def no_precheck(context: PrecheckContext) -> None:
    """Check nothing."""


@dataclass(frozen=True)
class Command:
    """A request that creates a deployment of `service`.

    `apply` checks the request, inserts the deployment and returns its id; it may be called again in another transaction.
    `precheck` runs before it, without a transaction. Both raise RequestError if the request is refused.
    """

    service: str
    apply: Callable[[CommandTransaction], int]
    precheck: Callable[[PrecheckContext], Awaitable[None]] = no_precheck


@dataclass(frozen=True)
class DeployRequest:
    """A POST /deployments, parsed as JSON. `fields` are the spec fields as given, not yet checked."""

    service: str
    fields: dict[str, Any]
    mode: MergeMode = "merge"
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
