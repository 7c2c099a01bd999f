"""The port for what runs instances (design.md §6): Docker on one host, later Swarm; fakes live under tests/."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from services.spec import LOG_ROTATION, Healthcheck, Resources, VolumeMount

ContainerState = Literal["created", "running", "exited"]
"""Docker's other words are folded: paused and restarting are `running`, dead and removing are `exited`."""


class EngineError(Exception):
    """The engine refused; the message holds its own words.

    `reason` is the deployment's machine-readable reason. `transient` ones (the engine does not answer) are tried again.
    """

    def __init__(self, message: str, *, reason: str = "engine_error", transient: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.transient = transient


@dataclass(frozen=True)
class ImageInfo:
    """An image that the engine has. `healthcheck` is its HEALTHCHECK's test, when it has one."""

    id: str
    reference: str
    exposed_ports: tuple[int, ...] = ()
    healthcheck: tuple[str, ...] | None = None
    healthcheck_settings: Mapping[str, float] = field(default_factory=dict)
    """Of the image's HEALTHCHECK, in seconds: interval, timeout, start_period; and retries."""
    on_build: tuple[str, ...] = ()
    """Instructions that run in each build FROM the image."""


@dataclass(frozen=True)
class LogConfig:
    """The engine's log driver and its options, as a container is made with them."""

    driver: str = "json-file"
    options: Mapping[str, str] = field(default_factory=lambda: dict(LOG_ROTATION))


@dataclass(frozen=True)
class InstanceSpec:
    """All that the engine needs to make one container. Sizes in bytes, times in seconds.

    Its container is named `<SLUICE_NAME>-<id>` and labelled with owner, service, revision, deployment, slot and hash.
    """

    id: str
    service: str
    revision: int
    deployment: int
    slot: int
    hash: str
    image_id: str
    address: str
    port: int | None
    host_port: int | None = None
    """Published on the host under the same number."""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str | None = None
    user: str | None = None
    healthcheck: Healthcheck | None = None
    """Handed to the engine only when it has a `test`."""
    resources: Resources | None = None
    volumes: tuple[VolumeMount, ...] = ()
    networks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    logging: LogConfig = field(default_factory=LogConfig)
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Name → address, for `links`."""
    stop_signal: str | None = None


@dataclass(frozen=True)
class BuildSpec:
    """An image to be made. `context`: the bytes of a tar, read once; `dockerfile`: its path in there; `network`: the one
    that the steps of the build run in, as Docker names it (default, host, none)."""

    service: str
    tag: str
    context: Iterable[bytes]
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"


@dataclass(frozen=True)
class ContainerView:
    """One container of ours as the engine reports it, selected by label, never by name."""

    instance: str
    service: str
    revision: int
    deployment: int
    slot: int
    hash: str
    container_id: str
    state: ContainerState
    started_at: str
    """The engine's own text; with the container's id it names one start."""
    address: str | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    health: Literal["none", "starting", "healthy", "unhealthy"] = "none"
    """The engine's judgement by the container's own HEALTHCHECK."""
    auto_restart: bool = False
    """Its restart policy is `always`: it has been admitted once."""

    @property
    def start_id(self) -> str:
        return f"{self.container_id}@{self.started_at}"


@dataclass(frozen=True)
class Usage:
    """What a container has used: seconds of CPU since it started, and bytes of memory now, without what can be given back at
    once. `memory_limit` None: as much as there is."""

    cpu_seconds: float
    memory: int
    memory_limit: int | None


@dataclass(frozen=True)
class EngineEvent:
    """`start`, `die` and `destroy` of a container of ours, `health` when its own check changed its mind, and
    `reconnected` (no instance) after the stream broke: whatever happened meanwhile must be observed."""

    kind: Literal["start", "die", "destroy", "health", "reconnected"]
    service: str = ""
    instance: str = ""
    container_id: str = ""
    start: str = ""
    """For `die`: the start that died, as ContainerView.start."""
    exit_code: int | None = None


class Engine(Protocol):
    """Makes and watches instances. Every call is idempotent and raises EngineError."""

    async def ping(self) -> Mapping[str, Any]:
        """Version facts: version, api_version, node (host name)."""

    async def pull(self, reference: str, auth: str | None = None) -> ImageInfo:
        """Pull with the operator's credentials, or with `auth` (the text of an X-Registry-Auth header).

        An image that cannot be pulled but is there already is used as it is. Else EngineError `image_pull_failed`.
        """

    async def find_image(self, reference: str) -> ImageInfo | None:
        """The image as the engine has it now; None when it has none. Asks no registry."""

    async def compose_containers(self, project: str) -> Mapping[str, str]:
        """What runs of a Compose project under Compose itself: service → the name of one of its containers."""

    async def networks_exist(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the named networks that do not exist, or that no service may join: a Sluice's own, `host` and `none`."""

    async def existing_volumes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the named volumes that the engine has."""

    async def start(self, spec: InstanceSpec) -> ContainerView:
        """Make and start its container, restart policy `no`. One that is already there with the same owner and hash is it.

        EngineError: `no_capacity` (memory, more than 900 instances), `port_taken` (of the host), `mount_refused` (a host
        path that is missing, or is or lies below a symbolic link; a volume that stands for a host path), `engine_error`.
        """

    async def enable_auto_restart(self, instance: str) -> None:
        """Restart policy `always` from now on: it has been admitted."""

    async def observe(self, service: str | None = None) -> list[ContainerView]:
        """All containers of ours, of one service or of all, whatever their state."""

    async def stop(self, instance: str, grace: float) -> ContainerView | None:
        """Stop signal, then SIGKILL after `grace` seconds; returns how it ended, None when it has gone."""

    async def remove(self, instance: str) -> None:
        """Remove a container that has stopped. Gone already is success. Its anonymous volumes go with it."""

    async def logs(self, instance: str, *, tail: int = 200, since: float | None = None, timestamps: bool = False) -> str:
        """The last `tail` lines of both streams. `timestamps`: before each line its time, RFC 3339 with nanoseconds in UTC,
        always as long, and a blank."""

    def follow_logs(
        self, instance: str, *, tail: int = 200, since: float | None = None, timestamps: bool = False
    ) -> AsyncIterator[str]:
        """Lines as they come; ends with the container."""

    async def usage(self, instance: str) -> Usage | None:
        """None when it does not run."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Never ends by itself; reconnects, and says `reconnected` first thing and whenever it did."""

    def build(self, spec: BuildSpec) -> AsyncIterator[str]:
        """Lines of the build's log as they come; at its end the image is there under its tag, and with labels that say whose
        it is. Leaving the iterator gives the build up. EngineError `build_failed`."""

    async def tag(self, image: str, tag: str) -> None:
        """From now on `tag` names this image as well, and no other one."""

    async def prune(self, keep: frozenset[str]) -> tuple[str, ...]:
        """Remove the images that this Sluice built, but those whose tags are in `keep` and those that anybody uses.

        What Sluice only pulled is never removed: an engine does not tell whose pull brought an image, nor who wants it
        by now. Returns the tags of what went.
        """
