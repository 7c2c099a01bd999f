"""Response schemas, for the documentation; tests compare them with app/presenters/rollouts.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from services.rollouts.state.operational_state import OperationalState
from services.rollouts.state.status import Kind, Status

InstanceStatus = Literal[
    "creating", "starting", "ready", "serving", "unhealthy", "draining", "stopping", "stopped", "failed"
]
ServiceStatus = Literal["serving", "degraded", "down", "stopped", "removed"]
Scope = Literal["read", "deploy", "write", "admin"]
Link = Literal["self", "events", "page"]


class Who(BaseModel):
    kind: str
    name: str | None


class Warn(BaseModel):
    code: str
    message: str


class Progress(BaseModel):
    """Counts of instances.

    `desired`, `ready` and `serving` count new instances, `old_serving` and `draining` those to be removed.
    """

    desired: int
    ready: int
    serving: int
    old_serving: int
    draining: int
    failed: int


class Share(BaseModel):
    """The percentage of new requests that a revision gets."""

    revision: int
    percent: int


class Probe(BaseModel):
    ok: bool
    status: int | None
    error: str | None
    at: datetime | None


class Instance(BaseModel):
    id: str
    service: str
    revision: int
    slot: int
    status: InstanceStatus
    address: str
    host_port: int | None
    container_id: str | None
    node: str | None
    in_flight: int
    restarts: int
    created_at: datetime
    ready_at: datetime | None
    unhealthy_since: datetime | None
    unhealthy_reason: str | None
    exit_code: int | None
    oom_killed: bool
    last_probe: Probe | None
    log_tail: str | None


class Dependency(BaseModel):
    """A deployment of the group that this one waits for; if `required`, its failure fails this one too."""

    deployment: int
    required: bool


class Deployment(BaseModel):
    id: int
    service: str
    kind: Kind
    status: Status
    reason: str | None
    message: str
    revision: int | None
    from_revision: int | None
    strategy: str
    profile: str | None
    image: str | None
    image_id: str | None
    note: str | None
    created_by: Who
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    progress: Progress
    traffic: list[Share]
    warnings: list[Warn]
    retry_of: int | None
    superseded_by: int | None
    group: int | None
    depends_on: list[Dependency]
    instances: list[Instance]
    actions: list[Literal["pause", "resume", "abort", "retry"]]
    links: dict[Link, str]


class Applied(BaseModel):
    """The deployments of a file, in the order in which they may begin."""

    group: int
    deployments: list[int]


class FieldChange(BaseModel):
    """A changed field of a spec.

    `field` is dotted. `old` is null for an added field, `new` for a removed one. Secrets are `***`.
    """

    field: str
    change: Literal["added", "removed", "changed"]
    old: Any
    new: Any


class PlannedStep(BaseModel):
    """A step of the plan; the steps of one `turn` run side by side.

    `revision` is the one that the instance was, or would be, created in.
    """

    turn: int
    action: Literal["start", "admit", "recall", "withdraw", "cut", "stop", "remove"]
    instance: str
    slot: int
    revision: int
    message: str


class Preview(BaseModel):
    """The deployment, changes and steps that a request would cause (?dry_run=true); nothing is written."""

    service: str
    kind: Kind
    message: str
    revision: int | None
    from_revision: int | None
    replicas: int
    from_replicas: int
    strategy: str
    profile: str | None
    image: str | None
    image_id: str | None
    diff: list[FieldChange]
    warnings: list[Warn]
    unchanged: bool
    replaces_instances: bool
    steps: list[PlannedStep]


class Previews(BaseModel):
    """A preview of each deployment of the file (?dry_run=true)."""

    previews: list[Preview]


class RevisionDiff(BaseModel):
    """The changes between two revisions; `replaces_instances` if they need different containers."""

    service: str
    revision: int
    to: int
    replaces_instances: bool
    diff: list[FieldChange]


class LastDeployment(BaseModel):
    """A short form of the service's newest deployment."""

    id: int
    kind: Kind
    status: Status
    reason: str | None
    message: str


class Service(BaseModel):
    name: str
    status: ServiceStatus
    state: OperationalState
    url: str | None
    internal_url: str | None
    image: str | None
    revision: int | None
    profile: str | None
    replicas: int
    serving: int
    deployment: LastDeployment | None
    warnings: list[Warn]
    spec: dict[str, Any]
    created_at: datetime


class Revision(BaseModel):
    """A revision of a service.

    `spec` is the stored spec, `overrides` holds the fields that requests set over the profile, and `effective` is the
    result.
    """

    service: str
    number: int
    present: bool
    served: bool
    image: str
    image_id: str
    port: int | None
    profile: str | None
    hash: str
    spec: dict[str, Any]
    overrides: dict[str, Any]
    effective: dict[str, Any]
    healthcheck: dict[str, Any]
    deployment: int
    created_at: datetime


class Event(BaseModel):
    id: int
    at: datetime
    type: str
    message: str
    deployment: int | None
    service: str | None
    instance: str | None
    actor: Who | None
    data: dict[str, Any]


class AuditEntry(Event):
    remote: str | None
    token: int | None


class Token(BaseModel):
    id: int
    name: str
    scope: Scope
    services: list[str] | None
    hosts: list[str] | None
    path_prefixes: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewToken(Token):
    """A new token; `token` is shown once, and is null for a repeated Idempotency-Key."""

    token: str | None


class SignInLink(BaseModel):
    url: str
    expires_at: datetime


class Health(BaseModel):
    status: Literal["alive"]


class UnknownContainer(BaseModel):
    """A container with Sluice's labels that the store does not know, and the command that removes it."""

    name: str
    instance: str
    remove: str


class Readiness(BaseModel):
    status: Literal["ready"]
    engine: dict[str, Any]
    network: dict[str, Any]
    gateway: dict[str, Any]
    store: dict[str, Any]
    store_behind_engine: list[str]
    unknown_containers: list[UnknownContainer]


class Version(BaseModel):
    version: str
    name: str
    run: int
    engine: dict[str, Any] | None


class Deployments(BaseModel):
    items: list[Deployment]
    next: str | None


class Services(BaseModel):
    items: list[Service]
    next: str | None


class Revisions(BaseModel):
    items: list[Revision]
    next: str | None


class Instances(BaseModel):
    items: list[Instance]
    next: str | None


class Events(BaseModel):
    items: list[Event]
    next: str | None


class Audit(BaseModel):
    items: list[AuditEntry]
    next: str | None


class Tokens(BaseModel):
    items: list[Token]
    next: str | None


class Build(BaseModel):
    """A build; `image` is its tag from the beginning, `image_id` is known once the build has succeeded."""

    id: int
    service: str
    status: Literal["pending", "building", "succeeded", "failed"]
    reason: str | None
    message: str
    image: str
    image_id: str | None
    dockerfile: str
    target: str | None
    created_by: Who
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[Literal["self", "log", "page"], str]


class Builds(BaseModel):
    items: list[Build]
    next: str | None
