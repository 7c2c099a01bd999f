"""The port of the engine, which runs instances: Docker on one host, later Docker Swarm.

Its fakes live under tests/.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from services.spec import LOG_ROTATION, ContainerFields, Healthcheck

ContainerState = Literal["created", "running", "exited"]
"""The states that the planner knows.

Docker's other states map to them: paused and restarting to `running`, dead and removing to `exited`.
"""


IMAGE_GONE = "image_gone"
"""Reason of an EngineError, and of a deployment: the engine has lost the image that a stored revision needs."""


class EngineError(Exception):
    """A refusal or failure of the engine; the message holds the engine's own text.

    `reason` is the deployment's machine-readable reason. A `transient` error (the engine does not answer) is retried.
    """

    def __init__(self, message: str, *, reason: str = "engine_error", transient: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.transient = transient


@dataclass(frozen=True)
class ImageInfo:
    """An image that the engine has. `healthcheck` is the test of its HEALTHCHECK, None if it has none."""

    id: str
    reference: str
    exposed_ports: tuple[int, ...] = ()
    healthcheck: tuple[str, ...] | None = None
    healthcheck_settings: Mapping[str, float] = field(default_factory=dict)
    """Settings of the HEALTHCHECK: `interval`, `timeout`, `start_period` in seconds; and `retries`."""
    on_build: tuple[str, ...] = ()
    """The image's ONBUILD instructions, which run in each build FROM the image."""
    volumes: tuple[str, ...] = ()
    """The paths of the image's VOLUME instructions."""
    digest: str | None = None
    """The image as `repository@sha256:…`, in the repository of `reference`; None if it was never pulled from there."""
    not_pulled: str = ""
    """Why the registry could not be reached, if this is the engine's older copy; empty otherwise."""
    inspected: bool = True
    """False for the stand-in of an image that the engine does not have yet, of which nothing is known."""


@dataclass(frozen=True)
class LogConfig:
    """The log driver of a container and the driver's options."""

    driver: str = "json-file"
    options: Mapping[str, str] = field(default_factory=lambda: dict(LOG_ROTATION))


@dataclass(frozen=True)
class InstanceSpec:
    """Everything the engine needs to create one container.

    The container is named `<SLUICE_NAME>-<id>` and labelled with owner, service, revision, deployment, slot and hash.

    `fields` holds the spec's own fields. `host_port`, `hosts` and `logging` replace three of them: the allocated port,
    the addresses of `links`, and the log driver after the operator's profiles are applied.
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
    fields: ContainerFields = field(default_factory=ContainerFields)
    host_port: int | None = None
    """Port published on the host, under the same number inside the container."""
    healthcheck: Healthcheck | None = None
    """Passed to the engine only if it has a `test`."""
    logging: LogConfig = field(default_factory=LogConfig)
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Host name → address."""


@dataclass(frozen=True)
class BuildSpec:
    """An image to build.

    - `context`: the bytes of a tar archive, read once.
    - `dockerfile`: the Dockerfile's path in the context.
    - `network`: the network of the build's steps, as Docker names it (default, host, none).
    """

    service: str
    tag: str
    context: Iterable[bytes]
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"


@dataclass(frozen=True)
class HealthResult:
    """The result of one run of a container's HEALTHCHECK; `at` is in seconds since the epoch."""

    exit_code: int
    output: str
    at: float


@dataclass(frozen=True)
class ContainerView:
    """A container with this Sluice's labels as the engine reports it.

    Labels can be copied, so a view alone does not prove that Sluice created the container: the store has the ids.
    """

    instance: str
    service: str
    revision: int
    deployment: int
    slot: int
    hash: str
    container_id: str
    state: ContainerState
    started_at: str
    """The engine's own text. Together with the container's id it identifies one start."""
    address: str | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    health: Literal["none", "starting", "healthy", "unhealthy"] = "none"
    """The result of the container's own HEALTHCHECK."""
    last_test: HealthResult | None = field(default=None, compare=False)
    """The last run of the container's HEALTHCHECK that the engine shows."""
    paused: bool = False
    restarting: bool = False
    """Whether the process has ended and the engine is about to start it again. `state` is `running` meanwhile."""
    auto_restart: bool = False
    """True if the restart policy is `always`: the instance has been admitted once."""

    name: str = ""
    """The container's own name on the engine."""
    renamed: bool = False
    """Whether the name is not the one that Sluice gives to the instance's container."""

    @property
    def start_id(self) -> str:
        return f"{self.container_id}@{self.started_at}"


@dataclass(frozen=True)
class Usage:
    """Resource usage of one container.

    `cpu_seconds` counts from the container's start. `memory` is in bytes and leaves out the cache that the kernel can
    reclaim. `memory_limit` None means unlimited.
    """

    cpu_seconds: float
    memory: int
    memory_limit: int | None


@dataclass(frozen=True)
class EngineEvent:
    """An event about a container of this Sluice, or about the event stream itself.

    - `start`, `die`, `destroy`: the container did so.
    - `disconnect`: the container was disconnected from Sluice's network while it runs.
    - `health`: the result of the container's HEALTHCHECK changed, or the container was paused, unpaused or given
      another address.
    - `reconnected`: the stream was interrupted, so the caller must observe all instances again. It names no instance.
    """

    kind: Literal["start", "die", "destroy", "health", "disconnect", "reconnected"]
    service: str = ""
    instance: str = ""
    container_id: str = ""
    start_id: str = ""
    """Of `die` and `disconnect` events: the start that ended, in the format of `ContainerView.start_id`."""
    exit_code: int | None = None
    renamed: bool = False
    """Whether the container has another name than Sluice gives to the instance's container."""


class Engine(Protocol):
    """Port that creates and observes instances. Every call is idempotent and raises EngineError.

    Calls about an instance take the id of its `container`; None finds the container by name, while the store has no id.
    """

    async def ping(self) -> Mapping[str, Any]:
        """Return facts about the engine: version, api_version, node (its host name)."""

    async def pull(self, reference: str, auth: str | None = None) -> ImageInfo:
        """Pull an image with the operator's credentials, or with `auth`.

        `auth` is the text of an X-Registry-Auth header. If the registry cannot be reached and the image is present already,
        return the current one, with `not_pulled` set. Raise EngineError `image_pull_failed` if the registry refuses, even if
        the image is present, and for any other failure.
        """

    async def find_image(self, reference: str) -> ImageInfo | None:
        """Return the image as the engine has it now, None if it has none. Contacts no registry."""

    async def compose_containers(self, project: str) -> Mapping[str, str]:
        """Return the running containers of a Compose project that Compose itself started.

        The result maps each Compose service to the name of one of its containers.
        """

    async def networks_exist(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the named networks that do not exist or that no service may join.

        No service may join the network of a Sluice, `host` and `none`.
        """

    async def existing_volumes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the named volumes that the engine has."""

    async def start(self, spec: InstanceSpec) -> ContainerView:
        """Create and start the instance's container with restart policy `no`.

        A container that exists already with the same owner and hash is adopted.

        Raises EngineError with one of these reasons:
        - `no_capacity`: memory is short, or there are more than 900 instances.
        - `port_taken`: the host port is in use.
        - `image_gone`: the engine does not have the image.
        - `mount_refused`: a host path is missing, is a symbolic link or lies below one; or a volume stands for a host
          path.
        - `engine_error`: any other refusal.
        """

    async def enable_auto_restart(self, instance: str, container: str | None = None) -> None:
        """Set the restart policy to `always`, because the instance has been admitted."""

    async def reconnect(self, instance: str, address: str, container: str | None = None) -> None:
        """Connect a running container to Sluice's network again with this address. Idempotent."""

    async def observe(self, service: str | None = None) -> list[ContainerView]:
        """Return all containers with this Sluice's labels, or those of one service, in any state."""

    async def stop(self, instance: str, grace: float, container: str | None = None) -> ContainerView | None:
        """Send the stop signal, then SIGKILL after `grace` seconds.

        Return the ended container, None if it no longer exists.
        """

    async def remove(self, instance: str, container: str | None = None) -> None:
        """Remove a stopped container and its anonymous volumes. Succeeds if the container no longer exists."""

    async def logs(
        self,
        instance: str,
        container: str | None = None,
        *,
        tail: int = 200,
        since: float | None = None,
        timestamps: bool = False,
    ) -> str:
        """Return the last `tail` lines of stdout and stderr.

        With `timestamps`, each line starts with its time and a blank. The time is RFC 3339 in UTC with nanoseconds
        and always has the same length.
        """

    def follow_logs(
        self,
        instance: str,
        container: str | None = None,
        *,
        tail: int = 200,
        since: float | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[str]:
        """Yield log lines as they are written; ends with the container."""

    async def usage(self, instance: str, container: str | None = None) -> Usage | None:
        """Return the instance's resource usage, None if the instance does not run."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Yield events without end. Yields `reconnected` first, and again after each reconnection."""

    def build(self, spec: BuildSpec) -> AsyncIterator[str]:
        """Build an image and yield the lines of the build's log as they are written.

        When the iterator ends, the image exists under its tag, with labels that name its owner. Closing the iterator
        cancels the build. Raises EngineError `build_failed`.
        """

    async def tag(self, image: str, tag: str) -> None:
        """Add `tag` to the image and remove the tag from any other image."""

    async def prune(self, keep: frozenset[str]) -> tuple[str, ...]:
        """Remove the images that this Sluice built, except those with a tag in `keep` and those in use.

        Return the removed tags.

        Images that Sluice only pulled are never removed: an engine does not record who pulled an image or who still
        needs it.
        """
