"""The tables. Times are seconds since the epoch (float).

The documents of the API are made from these rows by app/presenters.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, MetaData, text
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata: MetaData = SQLModel.metadata


def _json(default: Any) -> Any:
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


def _json_or_null() -> Any:
    return Field(default=None, sa_column=Column(JSON, nullable=True))


class Meta(SQLModel, table=True):
    """Single facts: the fencing number, the subnet, the address allocated last."""

    key: str = Field(primary_key=True)
    value: str


class Service(SQLModel, table=True):
    """A service by its name. `revision` is that of the last deployment that succeeded."""

    name: str = Field(primary_key=True)
    replicas: int = 1
    revision: int | None = None
    next_revision: int = 1
    internal_port: int = Field(unique=True)
    removed: bool = False
    created_at: float


class Revision(SQLModel, table=True):
    """An immutable snapshot of a service's spec.

    `spec` is the base; `effective` is the result of base, profile and the requests over them.
    """

    service: str = Field(primary_key=True, foreign_key="service.name")
    number: int = Field(primary_key=True)
    spec: dict[str, Any] = _json(dict)
    profile: str | None = None
    overrides: dict[str, Any] = _json(dict)
    effective: dict[str, Any] = _json(dict)
    image: str
    image_id: str
    port: int | None = None
    hash: str
    healthcheck: dict[str, Any] = _json(dict)
    """The resolved health check: the spec's, or else the image's, or else any answer below 500."""
    served: bool = False
    next_instance: int = 1
    deployment: int
    created_at: float
    image_digest: str | None = None
    """The image as `repository@sha256:…`; None if it was never pulled, or is older than this column."""


class Deployment(SQLModel, table=True):
    __table_args__ = (
        # One running deployment per service: a race ends in an IntegrityError, not in two rollouts.
        Index(
            "ux_deployment_one_active",
            "service",
            unique=True,
            sqlite_where=text("status IN ('progressing','paused','rolling_back')"),
        ),
        Index("ix_deployment_service_id", "service", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    service: str = Field(foreign_key="service.name")
    kind: str
    status: str = Field(default="pending", index=True)
    reason: str | None = None
    message: str = ""
    body: dict[str, Any] = _json(dict)
    """The request's spec fields, merged over the current spec when the deployment begins."""
    mode: str = "merge"
    profile_named: bool = False
    """Whether the request named a profile (null included). Otherwise the current profile stays."""
    profile: str | None = None
    on_conflict: str = "supersede"
    revision: int | None = None
    from_revision: int | None = None
    replicas: int | None = None
    from_replicas: int | None = None
    strategy: str = "rolling"
    failure_action: str = "rollback"
    image: str | None = None
    image_id: str | None = None
    note: str | None = None
    created_by_kind: str = "token"
    created_by_name: str = ""
    bound_to: dict[str, list[str]] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """The limits of the author's token (services/grant.py), or null if there are none.

    They are checked again when the deployment begins.
    """
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    turned_at: float | None = None
    """The time at which the deployment began, resumed or started its rollback, whichever was last.

    Failures from before that time do not count again.
    """
    milestone: int = 0
    """The furthest progress of the deployment's instances so far; more progress extends the deadline."""
    run: int = 0
    """The fencing number of the process that holds the deployment; a write by an older process is refused."""
    progress: dict[str, Any] = _json(dict)
    traffic: list[dict[str, Any]] = _json(list)
    warnings: list[dict[str, Any]] = _json(list)
    """Each is {code, message}."""
    retry_of: int | None = None
    superseded_by: int | None = None
    group: int | None = Field(default=None, index=True)
    """The number that all deployments applied together, from one file, share."""
    depends_on: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False, server_default=text("'[]'"))
    )
    """Dependencies in the same group, each {deployment, required}.

    The deployment begins when all of them have ended and the required ones have succeeded.
    """


class Instance(SQLModel, table=True):
    __table_args__ = (
        Index("ix_instance_service_status", "service", "status"),
        Index("ix_instance_deployment", "deployment"),
        Index("ix_instance_failed_deployment", "failed_deployment"),
        Index("ix_instance_restarts", "service", "restarts", sqlite_where=text("restarts > 0")),
    )

    id: str = Field(primary_key=True)
    service: str = Field(foreign_key="service.name")
    revision: int
    deployment: int
    """The deployment that created the instance."""
    slot: int
    address: str
    port: int | None = None
    host_port: int | None = None
    """The host port, the same inside and outside the container; `port` has the same value then."""
    hash: str
    status: str = "creating"
    container_id: str | None = None
    start: str | None = None
    created_at: float
    started_at: float | None = None
    ready_at: float | None = None
    admitted_at: float | None = None
    unhealthy_since: float | None = None
    unhealthy_reason: str | None = None
    leaving_at: float | None = None
    """The time at which draining began; null while the instance is active."""
    cut_at: float | None = None
    stopped_at: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    last_probe: dict[str, Any] | None = _json_or_null()
    failure_reason: str | None = None
    failure: str | None = None
    """The reason of the failure, as a sentence."""
    failed_deployment: int | None = None
    log_tail: str | None = None


class Event(SQLModel, table=True):
    """An append-only row that feeds history, SSE and audit."""

    __table_args__ = (Index("ix_event_deployment_id", "deployment", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    at: float
    type: str
    message: str = ""
    deployment: int | None = None
    service: str | None = Field(default=None, index=True)
    instance: str | None = None
    data: dict[str, Any] = _json(dict)
    actor_kind: str | None = Field(default=None, index=True)
    """Set for events that a user or client caused: these events are the audit."""
    actor_name: str | None = None
    actor_token: int | None = None
    """The token that was sent, or that opened the session; names of tokens are not unique."""
    remote: str | None = None


class Token(SQLModel, table=True):
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    name: str
    digest: str = Field(unique=True)
    """HMAC-SHA256 of the token; the token itself is never stored."""
    scope: str
    services: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """The only services that the token may change; null is all."""
    hosts: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    path_prefixes: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """Bounds of the routes that a bound token may give its services; null is none."""
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None


class BrowserSession(SQLModel, table=True):
    """A browser's session, or the one-time link that opens one (`kind` is link or session)."""

    __tablename__ = "session"

    digest: str = Field(primary_key=True)
    kind: str
    token: int = Field(foreign_key="token.id")
    created_at: float
    expires_at: float


class IdempotencyKey(SQLModel, table=True):
    key: str = Field(primary_key=True)
    token: int = Field(primary_key=True)
    fingerprint: str
    """SHA-256 of method, path and body."""
    deployment: int | None = None
    answer: dict[str, Any] = _json(dict)
    """The answer to a POST that created no deployment: {status, body}."""
    created_at: float = Field(index=True)


class TrafficSample(SQLModel, table=True):
    """The traffic of one service's revision in the `step` seconds from `at` on.

    A period without requests has no row. Rows of 10 s are kept for an hour, rows of 60 s for a day
    (services/traffic_metrics/repository.py). The key begins with the time, so that rows that are written or deleted together
    are stored together.
    """

    __tablename__ = "figure"

    __table_args__ = ({"sqlite_with_rowid": False},)

    step: int = Field(primary_key=True)
    at: int = Field(primary_key=True)
    """A multiple of `step`, in seconds since the epoch."""
    service: str = Field(primary_key=True)
    revision: int = Field(primary_key=True)
    """The revision; 0 for responses of the gateway itself."""
    requests: int
    status_4xx: int
    status_5xx: int
    histogram: list[int] = _json(list)
    """Responses of instances by the time until they began.

    There is one count for each of BUCKET_BOUNDS (services/routing/traffic_counts.py), and a last one for slower responses.
    """


class Lease(SQLModel, table=True):
    """A registration at the Eureka port, restored after a restart. Timestamps are in milliseconds."""

    app: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    instance: str | None = None
    """The instance of Sluice's from which the registration came, if any."""
    address: str | None = None
    """The source address that registered the lease; only this address may change the lease.

    None means not known, since the row is older than this column.
    """
    registration: dict[str, Any] = _json(dict)
    """The registration as services/eureka/codec.py writes it for clients."""
    status: str
    override: str
    registered_at: int
    up_at: int


class Application(SQLModel, table=True):
    """The service of a Eureka application, and the last registration of one of its instances."""

    name: str = Field(primary_key=True)
    service: str = Field(foreign_key="service.name")
    registration: dict[str, Any] = _json(dict)


class Build(SQLModel, table=True):
    """An image built from a context that a client sent. The service need not exist yet."""

    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    service: str = Field(index=True)
    status: str
    reason: str | None = None
    message: str = ""
    image: str = Field(unique=True)
    """The tag of the image, which no other build ever gets."""
    image_id: str | None = Field(default=None, index=True)
    dockerfile: str
    target: str | None = None
    created_by_kind: str
    created_by_name: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    log: str = ""
    """The last lines of the build's log, at most MOST_LOG bytes (services/builds/log.py)."""
    log_first: int = 1
    """The number of the first line that is kept."""
