"""The spec of a service (docs/api.md): its fields, defaults, and bounds that keep input harmless."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from services.text_forms import (
    CheckPath,
    EurekaUrl,
    HeaderName,
    HeaderValue,
    Host,
    ImageReference,
    LogDriver,
    MountSource,
    MountTarget,
    Name,
    NetworkName,
    Path,
    ProfileName,
    ServiceName,
    StopSignal,
    Text,
    User,
    Word,
    WorkingDir,
)
from services.units import Duration, PositiveDuration, Size

Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
StrategyName = Literal["rolling", "recreate"]


def _environment_value(value: Any) -> Any:
    """Return numbers and booleans as text.

    Compose writes them bare, but a container's environment is text.
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) and math.isfinite(value) else value


_EnvironmentValue = Annotated[Word, BeforeValidator(_environment_value)]


def _count_or_percent(value: Any) -> Any:
    percent = isinstance(value, str) and re.fullmatch(r"(?:[0-9]|[1-9][0-9]|100)%", value)
    count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100
    if not percent and not count:
        raise ValueError('must be a count from 0 to 100 or a percentage such as "25%"')
    return value


CountOrPercent = Annotated[int | str, BeforeValidator(_count_or_percent)]


class _Part(BaseModel):
    """A part of the spec. Unknown fields are refused, so that a typo never deploys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Route(_Part):
    """A route to the service, for requests to `host` (any if null) under `path_prefix`.

    `strip_prefix` removes the prefix from the path that the service gets.
    """

    host: Host | None = None
    path_prefix: Path = "/"
    strip_prefix: Flag = False

    @property
    def key(self) -> tuple[str, str]:
        """The key that is unique in the gateway. `/a` and `/a/` have the same key."""
        return self.host or "*", self.path_prefix.rstrip("/") + "/"


HEALTHCHECK_USER_AGENT = "sluice-healthcheck"
"""User-Agent of the health checks of Sluice and of the gateway, unless `headers` has another one."""


class Healthcheck(_Part):
    """The readiness check of an instance: HTTP (the default), `tcp`, the container's own `test`, or none."""

    path: CheckPath | None = None
    port: Port | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=32)
    expect_json: dict[Text, Any] | None = Field(default=None, max_length=32)
    tcp: Flag = False
    test: list[Word] | None = Field(default=None, min_length=1, max_length=64)
    disable: Flag = False
    any_below_500: SkipJsonSchema[bool] = Field(default=False, exclude=True, repr=False)
    """Whether any answer below 500 is healthy. Only Sluice sets it, for a service without a check: requests may not."""
    interval: PositiveDuration = 1
    timeout: PositiveDuration = 2
    retries: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    start_period: Duration = 60

    @model_validator(mode="after")
    def _check_single_probe_kind(self) -> Self:
        ways = [self.path is not None, self.tcp, self.test is not None, self.disable]
        if sum(ways) > 1:
            raise ValueError("path, tcp, test and disable exclude each other; exactly one is needed")
        if self.path is None and (self.expect_json is not None or self.headers):
            raise ValueError("headers and expect_json need a path")
        if self.test is not None and self.test[0] not in ("CMD", "CMD-SHELL"):
            raise ValueError('test must start with "CMD" or "CMD-SHELL"')
        return self


class Eureka(_Part):
    """An external Eureka server at which the service's instances register themselves.

    `consumer_staleness` is the time in seconds for which the server's consumers may still send requests to an instance that
    is out of service there. Its default is the sum of the delays of the stock server (30), of Spring's fetching (30) and of
    Spring's load balancer (35).
    """

    url: EurekaUrl
    consumer_staleness: Duration = 95


class HostPort(_Part):
    """A free host port for each instance, none of `exclude`.

    The port is the same inside and outside the container.
    """

    auto: Literal[True]
    exclude: list[Port] = Field(default_factory=list, max_length=10_000)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"auto": True} if value == "auto" else value


class Resources(_Part):
    """Limits of one instance: `cpus` in cores, `memory` in bytes, `pids` as a count."""

    cpus: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] | None = None
    memory: Annotated[Size, Field(ge=6 * 1024**2)] | None = None
    pids: Annotated[int, Field(ge=1, le=4_194_304, strict=True)] | None = None


class VolumeMount(_Part):
    """A named volume, a host path (under the operator's allowed roots), or a tmpfs."""

    type: Literal["volume", "bind", "tmpfs"] = "volume"
    source: MountSource | None = Field(default=None, validate_default=True)
    target: MountTarget
    read_only: Flag = False
    shared: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """Parse Compose's short form, `source:target[:ro|rw]`."""
        if not isinstance(value, str):
            return value
        parts = value.split(":")
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise ValueError('must be "source:target", "source:target:ro", or the long form')
        kind = "bind" if parts[0].startswith(("/", ".", "~")) else "volume"
        return {"type": kind, "source": parts[0], "target": parts[1], "read_only": parts[2:] == ["ro"]}

    @field_validator("source")
    @classmethod
    def _source_fits(cls, source: str | None, info: ValidationInfo) -> str | None:
        kind, text = info.data.get("type"), source or ""
        if kind != "tmpfs" and not text:
            raise ValueError("is required")
        if kind == "bind" and (not text.startswith("/") or ".." in text.split("/")):
            raise ValueError('must be an absolute path of the host, without ".."')
        if kind == "volume" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", text):
            raise ValueError(
                "must be a volume's name: at most 255 letters, digits, '_', '.' and '-', a letter or digit first; "
                'or a host path, which begins with "/"'
            )
        return source

    @property
    def host_path(self) -> str:
        """The source of a bind mount, without "." and doubled slashes."""
        return "/" + posixpath.normpath(self.source or "").lstrip("/")

    @property
    def writable_alone(self) -> bool:
        """Whether two instances must never write the volume at the same time."""
        return self.type != "tmpfs" and not self.read_only and not self.shared


LOG_ROTATION: Mapping[str, str] = MappingProxyType({"max-size": "10m", "max-file": "3"})
ROTATING_DRIVERS = frozenset({"json-file", "local"})


def _log_options(fields: dict[str, Any]) -> dict[str, str]:
    return dict(LOG_ROTATION) if fields.get("driver") in ROTATING_DRIVERS else {}


class Logging(_Part):
    """A log driver, or one of the operator's profiles.

    The drivers json-file and local keep three files of 10 MB by default. Any driver is accepted here, so that stored specs
    can be read; admission decides which drivers may come into force.
    """

    driver: LogDriver = "json-file"
    options: dict[Name, Text] = Field(default_factory=_log_options, max_length=32)


class ContainerFields(_Part):
    """The fields of the spec that are fixed when a container is created.

    The container hash and the engine's configuration of a container derive from them (docs/api.md). A change of any other
    field replaces no instance.
    """

    command: list[Word] | None = Field(default=None, max_length=256)
    entrypoint: list[Word] | None = Field(default=None, max_length=256)
    working_dir: WorkingDir | None = None
    user: User | None = None
    environment: dict[Name, _EnvironmentValue] = Field(default_factory=dict, max_length=1000)
    links: list[ServiceName] = Field(default_factory=list, max_length=100)
    resources: Resources | None = None
    volumes: list[VolumeMount] = Field(default_factory=list, max_length=64)
    networks: list[NetworkName] = Field(default_factory=list, max_length=16)
    labels: dict[Name, Word] = Field(default_factory=dict, max_length=1000)
    logging: Logging = Field(default_factory=Logging)
    stop_signal: StopSignal | None = None
    init: Flag = False
    host_port: HostPort | None = None


class _SourceFields(_Part):
    """The fields that come first in a spec."""

    image: ImageReference | None = None
    port: Port | None = None
    replicas: Annotated[int, Field(ge=0, le=100, strict=True)] | None = None


class SpecFields(ContainerFields, _SourceFields):
    """The fields of the spec except `profiles`. A profile may override each of them."""

    healthcheck: Healthcheck | None = None
    routes: list[Route] = Field(default_factory=list, max_length=100)
    stop_grace_period: Duration = 30
    drain_timeout: Duration = 30
    request_timeout: PositiveDuration = 60
    tunnel_timeout: PositiveDuration = 3600
    upstream_keepalive: Flag = True
    queue_timeout: Duration = 10
    retry_with_idempotency_key: Flag = False
    eureka: Eureka | None = None
    advertise: Literal["stable", "instances"] = "stable"
    consumer_cache: Duration = 35
    strategy: StrategyName = "rolling"
    max_surge: CountOrPercent = "100%"
    max_unavailable: CountOrPercent = 0
    min_ready_seconds: Duration = 0
    progress_deadline_seconds: PositiveDuration = 300
    failure_action: Literal["rollback", "pause"] = "rollback"
    on_conflict: Literal["supersede", "reject", "queue"] = "supersede"
    revision_history_limit: Annotated[int, Field(ge=1, le=100, strict=True)] = 10


class ServiceSpec(SpecFields):
    """A whole spec. A `port` of null makes the service a worker.

    If `port` is absent, the port is the image's only EXPOSEd one.
    """

    profiles: dict[ProfileName, SpecFields] = Field(default_factory=dict, max_length=32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if _is_zero(self.max_surge) and _is_zero(self.max_unavailable) and self.strategy == "rolling":
            raise ValueError("max_surge and max_unavailable cannot both be 0")
        if self.progress_deadline_seconds <= self.min_ready_seconds:
            raise ValueError("progress_deadline_seconds must be greater than min_ready_seconds")
        keys = [route.key for route in self.routes]
        if len(set(keys)) != len(keys):
            raise ValueError("routes must differ in host or path_prefix")
        if any(label == "sluice" or label.startswith("sluice.") for label in self.labels):
            raise ValueError('labels that start with "sluice." are reserved')
        return self

    @property
    def effective_strategy(self) -> StrategyName:
        """The strategy in force: `recreate` also if two instances must not write a volume at the same time."""
        return "recreate" if any(volume.writable_alone for volume in self.volumes) else self.strategy


def resolve_count_or_percent(value: int | str, replicas: int, *, up: bool) -> int:
    """Return a count as it is, or a percentage of `replicas` rounded up or down.

    Kubernetes' rule: a surge is rounded up, unavailable instances are rounded down.
    """
    if isinstance(value, int):
        return value
    exact = replicas * int(value[:-1]) / 100
    return math.ceil(exact) if up else math.floor(exact)


def _is_zero(value: int | str) -> bool:
    return value in (0, "0%")
