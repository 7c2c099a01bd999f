"""The tables. Times are seconds since the epoch (float); what the API shows is made of these by views.py."""

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

TERMINAL_SQL = "('succeeded','failed','rolled_back','aborted','rollback_failed','superseded')"


def _json(default: Any) -> Any:
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


def _json_or_null() -> Any:
    return Field(default=None, sa_column=Column(JSON, nullable=True))


class Meta(SQLModel, table=True):
    """Single facts: the run's number, the subnet, the address handed out last."""

    key: str = Field(primary_key=True)
    value: str


class Service(SQLModel, table=True):
    """What people named; `revision` is the present one: that of the last deployment that succeeded."""

    name: str = Field(primary_key=True)
    replicas: int = 1
    revision: int | None = None
    next_revision: int = 1
    internal_port: int = Field(unique=True)
    removed: bool = False
    created_at: float


class Revision(SQLModel, table=True):
    """An immutable snapshot. `spec` is the base; `effective` what base, profile and the requests over them came to."""

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
    """As resolved: the spec's, else the image's, else any answer below 500."""
    served: bool = False
    next_instance: int = 1
    deployment: int
    created_at: float


class Deployment(SQLModel, table=True):
    __table_args__ = (
        # at most one running deployment a service: the race ends in an IntegrityError, not in two rollouts
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
    """The request's spec fields, merged over the present spec when the deployment begins."""
    mode: str = "merge"
    profile_named: bool = False
    """The request named a profile (null included); otherwise the present one stays."""
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
    """The limits of the author's token (services/grant.py), checked again when the deployment begins; null is none."""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    turned_at: float | None = None
    """When it last set out: began, went on after a pause, or turned back. What failed before does not count again."""
    milestone: int = 0
    """How far its instances have come at most; more extends the deadline."""
    run: int = 0
    """The number of the run of Sluice that holds it; a write by an older run is refused."""
    progress: dict[str, Any] = _json(dict)
    traffic: list[dict[str, Any]] = _json(list)
    warnings: list[dict[str, Any]] = _json(list)
    """Each {code, message}."""
    retry_of: int | None = None
    superseded_by: int | None = None
    group: int | None = Field(default=None, index=True)
    """What was applied together, by one file, has one number."""
    depends_on: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False, server_default=text("'[]'"))
    )
    """Those of its group that it waits for, each {deployment, required}: it begins when they have succeeded."""


class Instance(SQLModel, table=True):
    __table_args__ = (
        Index("ix_instance_service_status", "service", "status"),
        Index("ix_instance_deployment", "deployment"),
        Index("ix_instance_failed_deployment", "failed_deployment"),
    )

    id: str = Field(primary_key=True)
    service: str = Field(foreign_key="service.name")
    revision: int
    deployment: int
    """The deployment in which it was born."""
    slot: int
    address: str
    port: int | None = None
    host_port: int | None = None
    """The same inside and outside; it is then `port` as well."""
    hash: str
    status: str = "creating"
    container_id: str | None = None
    start: str | None = None
    created_at: float
    started_at: float | None = None
    ready_at: float | None = None
    admitted_at: float | None = None
    leaving_at: float | None = None
    """Since when it is on its way out; null while it is wanted."""
    cut_at: float | None = None
    stopped_at: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    last_probe: dict[str, Any] | None = _json_or_null()
    failure_reason: str | None = None
    failure: str | None = None
    """Why it failed, as a sentence."""
    failed_deployment: int | None = None
    log_tail: str | None = None


class Event(SQLModel, table=True):
    """Append-only; feeds history, SSE and audit alike."""

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
    """Set on what somebody did: those events are the audit."""
    actor_name: str | None = None
    actor_token: int | None = None
    """The token that was shown, or that opened the session; names may be given twice."""
    remote: str | None = None


class Token(SQLModel, table=True):
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    name: str
    digest: str = Field(unique=True)
    """HMAC-SHA256 of the token; the token itself is never stored."""
    scope: str
    services: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """The only services that it may change; null is all."""
    hosts: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    path_prefixes: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """Bounds of the routes that a bound token may give its services; null is none."""
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None


class BrowserSession(SQLModel, table=True):
    """A browser's session, and the one-time link that opens one (`kind` link or session)."""

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
    """For a POST that made no deployment: {status, body}."""
    created_at: float = Field(index=True)


class TrafficSample(SQLModel, table=True):
    """What one service's revision answered in `step` seconds from `at` on. Where nothing was asked there is no row.

    Rows of 10 s are kept for an hour, of 60 s for a day (services/traffic_metrics/repository.py). The key begins with
    the time: what is
    written together lies together, and so does what is forgotten.
    """

    __tablename__ = "figure"

    __table_args__ = ({"sqlite_with_rowid": False},)

    step: int = Field(primary_key=True)
    at: int = Field(primary_key=True)
    """A multiple of `step`, in seconds since the epoch."""
    service: str = Field(primary_key=True)
    revision: int = Field(primary_key=True)
    """0 for what no instance answered, but the gateway itself."""
    requests: int
    status_4xx: int
    status_5xx: int
    histogram: list[int] = _json(list)
    """Answers of instances by the time until they began: one number for each of BOUNDS
    (services/routing/traffic_counts.py), the
    last for what was slower than all of them."""


class Lease(SQLModel, table=True):
    """A registration at the Eureka port, found again after a restart. Timestamps in milliseconds."""

    app: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    instance: str | None = None
    """The instance of ours that it came from."""
    address: str | None = None
    """The source address that registered it, which alone may change it. None: not known, since it is older than this."""
    registration: dict[str, Any] = _json(dict)
    """As services/eureka/codec.py writes it for clients."""
    status: str
    override: str
    registered_at: int
    up_at: int


class Application(SQLModel, table=True):
    """Which service an application is, and how its instances last described themselves."""

    name: str = Field(primary_key=True)
    service: str = Field(foreign_key="service.name")
    registration: dict[str, Any] = _json(dict)


class Build(SQLModel, table=True):
    """An image made from what a client sent. The service need not exist yet."""

    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    service: str = Field(index=True)
    status: str
    reason: str | None = None
    message: str = ""
    image: str = Field(unique=True)
    """The tag that it gets, which no other build ever gets."""
    image_id: str | None = Field(default=None, index=True)
    dockerfile: str
    target: str | None = None
    created_by_kind: str
    created_by_name: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    log: str = ""
    """Its last lines, at most MOST_LOG (services/builds/log.py)."""
    log_first: int = 1
    """The number of the first line that is kept."""
