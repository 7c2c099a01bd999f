"""The answers' shapes, for the documentation: app/presenters/rollouts.py makes what they describe; tests compare both."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from services.rollouts.state.status import Kind, Status

InstanceStatus = Literal["creating", "starting", "ready", "serving", "draining", "stopping", "stopped", "failed"]
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
    """Counts of instances: `desired` to `serving` of the new, `old_serving` and `draining` of those that leave."""

    desired: int
    ready: int
    serving: int
    old_serving: int
    draining: int
    failed: int


class Share(BaseModel):
    """How much of the new requests a revision gets."""

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
    exit_code: int | None
    oom_killed: bool
    last_probe: Probe | None
    log_tail: str | None


class Dependency(BaseModel):
    """A deployment of the same group that this one waits for; where it is `required`, its failure is this one's too."""

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
    """`field` is dotted; `old` is null where it was added, `new` where it was removed. Secrets are `***`."""

    field: str
    change: Literal["added", "removed", "changed"]
    old: Any
    new: Any


class PlannedStep(BaseModel):
    """Those of one `turn` are taken side by side. `revision`: where the instance was, or would be, born."""

    turn: int
    action: Literal["start", "admit", "recall", "withdraw", "cut", "stop", "remove"]
    instance: str
    slot: int
    revision: int
    message: str


class Preview(BaseModel):
    """With ?dry_run=true: what the deployment would be, change and do. Nothing is written."""

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
    """With ?dry_run=true: what each deployment of the file would be."""

    previews: list[Preview]


class RevisionDiff(BaseModel):
    """What changes from one revision to another. `replaces_instances`: something else runs in them."""

    service: str
    revision: int
    to: int
    replaces_instances: bool
    diff: list[FieldChange]


class LastDeployment(BaseModel):
    """The service's newest deployment, in short."""

    id: int
    kind: Kind
    status: Status
    reason: str | None
    message: str


class Service(BaseModel):
    name: str
    status: ServiceStatus
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
    """`spec`: what was kept; `overrides`: what requests laid over the profile; `effective`: what that came to."""

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
    """`token` is shown once; a repeated call with the same Idempotency-Key is answered with null in its place."""

    token: str | None


class SignInLink(BaseModel):
    url: str
    expires_at: datetime


class Health(BaseModel):
    status: Literal["alive"]


class Readiness(BaseModel):
    status: Literal["ready"]
    engine: dict[str, Any]
    gateway: dict[str, Any]
    store: dict[str, Any]
    store_behind_engine: list[str]


class OldWorker(BaseModel):
    """A process of the gateway that takes nothing new and finishes what it has. `upgraded`: its container was replaced."""

    pid: int
    uptime: float
    replaced_for: float
    upgraded: bool


class GatewayState(BaseModel):
    """`outdated`: why it is not as it would be made today; null when it is."""

    answers: bool
    version: str | None
    uptime: float | None
    image: str
    outdated: str | None
    upgrading: bool
    old_workers: list[OldWorker]


class Finding(BaseModel):
    """One part; `advice` is empty where all is well."""

    part: str
    status: Literal["ok", "warning", "wrong"]
    detail: str
    advice: str


class Examination(BaseModel):
    """`unwell`: something is wrong."""

    status: Literal["well", "unwell"]
    findings: list[Finding]


class GatewayUpgrade(BaseModel):
    """`unchanged`: it was as it would be made today. `seconds`: how long no change could be made in the gateway."""

    status: Literal["upgraded", "unchanged"]
    container_id: str | None
    previous_id: str | None
    seconds: float


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
    """`image` is the tag that the build gets, from its beginning; `image_id` is known when it has succeeded."""

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
