"""In-memory fake of the engine port, with every fault of a real engine on demand."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any, Literal

from services.clock import Clock
from services.engine.port import (
    IMAGE_GONE,
    BuildSpec,
    ContainerView,
    EngineError,
    EngineEvent,
    HealthResult,
    ImageInfo,
    InstanceSpec,
    Usage,
)
from tests.support.fakes.builder import dockerfile_of, steps
from tests.support.fakes.containers import Behaviour, Container, Health, timestamp

__all__ = ["Behaviour", "Container", "FakeEngine"]

Call = Literal[
    "ping",
    "pull",
    "find_image",
    "compose_containers",
    "networks_exist",
    "existing_volumes",
    "start",
    "enable_auto_restart",
    "reconnect",
    "observe",
    "stop",
    "remove",
    "logs",
    "usage",
    "build",
    "tag",
    "prune",
]
_KILLED = 137


class FakeEngine:
    """Fake of services.engine.port.Engine. With a fake clock, `sleep` must be that clock's own.

    Controls: `fail_next`, `unreachable`, `lose_events`, `break_stream`, `forgets_policies`, `capacity`, `behave`, `kill`,
    `set_health`, `write`, `vanish`, `occupy`, `restart`. `calls` has the calls received; `containers` the containers.
    """

    def __init__(self, clock: Clock, *, seed: int = 0, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.clock = clock
        self.containers: dict[str, Container] = {}
        self.images: dict[str, ImageInfo] = {}
        """Reference → image that the engine has."""
        self.registry: dict[str, ImageInfo] = {}
        """Reference → image that a pull finds."""
        self.unreached = ""
        """Why the registry cannot be reached; empty while it can."""
        self.built: set[str] = set()
        """Tags of images that Sluice built; `prune` may remove only these."""
        self.dockerfiles: dict[str, str] = {}
        """Tag → the Dockerfile that was sent for it."""
        self.networks: set[str] = {"bridge"}
        self.volumes: set[str] = set()
        self.compose: dict[tuple[str, str], str] = {}
        """(project, service) → a container that Compose runs for it."""
        self.calls: list[tuple[str, str]] = []
        """(method, instance or reference) of each call, in order."""
        self.pulls: list[tuple[str, str | None]] = []
        """(reference, auth) of each pull."""
        self.taken_ports: set[int] = set()
        """Ports of the host that other programs use."""
        self.links: dict[str, str] = {}
        """Symbolic link of the host → its target."""
        self.missing: set[str] = set()
        """Paths that do not exist on the host."""
        self.bound_volumes: dict[str, str] = {}
        """Volume → the host path that it binds."""
        self.capacity: int | None = None
        """Maximum number of running containers; a further start fails with `no_capacity`."""
        self.forgets_policies = False
        """`enable_auto_restart` succeeds without effect."""
        self.busiest = 0
        """Maximum number of containers that ever ran at the same time."""
        self._sleep = sleep
        self._random = Random(seed)
        self._behaviours: dict[str, Behaviour] = {}
        self._failures: dict[str, list[tuple[EngineError, bool]]] = defaultdict(list)
        self._occupied: set[str] = set()
        self._unreachable = False
        self._lost_events = 0
        self._readers: list[asyncio.Queue[EngineEvent]] = []
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    # Controls

    def add_image(
        self,
        reference: str,
        *,
        ports: tuple[int, ...] = (8000,),
        healthcheck: tuple[str, ...] | None = None,
        settings: Mapping[str, float] | None = None,
        pulled: bool = True,
        on_build: tuple[str, ...] = (),
        volumes: tuple[str, ...] = (),
    ) -> ImageInfo:
        """Add an image to the registry (`pulled`) or only to the engine."""
        digest = hashlib.sha256(f"{reference} {next(self._numbers)}".encode()).hexdigest()
        image = ImageInfo(f"sha256:{digest}", reference, ports, healthcheck, settings or {}, on_build, volumes)
        if pulled:
            image = replace(image, digest=f"{reference.rpartition(':')[0] or reference}@sha256:{digest}")
            self.registry[image.digest or ""] = image
        (self.registry if pulled else self.images)[reference] = image
        return image

    def lose_image(self, image_id: str) -> None:
        """Remove an image, as `docker image prune --all` does. The registry still has it."""
        self.images = {reference: image for reference, image in self.images.items() if image.id != image_id}

    def behave(self, subject: str, behaviour: Behaviour) -> None:
        """Set the behaviour of an instance's id, an image's id or reference, or a service's name.

        If several match a container, the first in this order applies.
        """
        self._behaviours[subject] = behaviour

    def fail_next(self, call: Call, error: EngineError, *, times: int = 1, done: bool = False) -> None:
        """Make the next `times` calls raise; with `done` the work is done and only its answer is lost."""
        self._failures[call] += [(error, done)] * times

    def become_unreachable(self) -> None:
        """Make every call fail with a transient error, and lose events, until `become_reachable`."""
        self._unreachable = True

    def become_reachable(self) -> None:
        self._unreachable = False
        self.break_stream()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        self.become_unreachable()
        try:
            yield
        finally:
            self.become_reachable()

    def lose_events(self, number: int = 1) -> None:
        """Lose the next events without any sign of it."""
        self._lost_events += number

    def break_stream(self) -> None:
        """Break event streams, which reconnect immediately."""
        self._emit(EngineEvent("reconnected"))

    def occupy(self, instance: str) -> None:
        """Let a container that is not Sluice's have this instance's name."""
        self._occupied.add(instance)

    def kill(self, instance: str, code: int | None = _KILLED, *, oom: bool = False, stays_down: bool = False) -> None:
        """Let its process die.

        With auto-restart it restarts, unless it was killed by a command to the engine (`stays_down`).
        """
        container = self.containers[instance]
        if container.state == "running":
            self._exit(container, code, oom=oom, stays_down=stays_down)

    def set_health(self, instance: str, health: Health, output: str = "") -> None:
        """Set the result of its own HEALTHCHECK."""
        container = self.containers[instance]
        container.last_test = HealthResult(int(health == "unhealthy"), output, self.clock.now())
        if container.health != health:
            container.health = health
            self._emit(container.event("health"))

    def pause(self, instance: str, *, paused: bool = True) -> None:
        """Pause or unpause its processes, as `docker pause` does."""
        container = self.containers[instance]
        container.paused = paused
        self._emit(container.event("health"))

    def disconnect(self, instance: str, address: str | None = None) -> None:
        """Disconnect it from Sluice's network; `address`: connect it again with this address."""
        container = self.containers[instance]
        container.address = address
        self._emit(container.event("disconnect"))

    def write(self, instance: str, text: str) -> None:
        """Write to its log as its process does."""
        container = self.containers[instance]
        container.write(text, self.clock.now())
        container.wake()

    def vanish(self, instance: str) -> None:
        """Remove the container by force, as a user may."""
        container = self.containers[instance]
        if container.state == "running":
            self._exit(container, _KILLED, stays_down=True)
        container.state = "exited"
        self._destroy(container)

    def rename(self, instance: str, name: str) -> None:
        """Rename its container, as a user may; an empty name is the instance's own."""
        container = self.containers.pop(instance)
        container.name = name
        self.containers[name or container.spec.id] = container

    def copy(self, instance: str, name: str) -> Container:
        """Start another container with its labels, as a user may."""
        copy = Container(self.containers[instance].spec, hashlib.sha256(name.encode()).hexdigest(), name=name)
        self.containers[name] = copy
        self._run(copy)
        return copy

    def forget_policy(self, instance: str) -> None:
        """Set its restart policy to `no`, as a user may."""
        self.containers[instance].auto_restart = False

    def restart(self, *, cleanly: bool = True) -> None:
        """Restart the engine: all containers die, those with auto-restart start again, streams break."""
        running = [container for container in self.containers.values() if container.state == "running"]
        self._lost_events += len(running) if not cleanly else 0
        for container in running:
            self._exit(container, 0 if cleanly else _KILLED, stays_down=True)
        for container in running:
            if container.auto_restart:
                self._run(container)
        self.break_stream()

    @property
    def running(self) -> list[str]:
        return sorted(name for name, container in self.containers.items() if container.state == "running")

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    # The port

    async def ping(self) -> Mapping[str, Any]:
        with self._record("ping", ""):
            return {"version": "fake", "api_version": "1.41", "node": "here"}

    async def pull(self, reference: str, auth: str | None = None) -> ImageInfo:
        await self._pause()
        with self._record("pull", reference):
            self.pulls.append((reference, auth))
            known = {image.id: image for image in self.images.values()}
            if self.unreached and reference in self.images:
                return replace(self.images[reference], reference=reference, not_pulled=self.unreached)
            remote = {} if self.unreached else self.registry
            found = remote.get(reference) or self.images.get(reference) or known.get(reference)
            if found is None:
                raise EngineError(f"manifest for {reference} not found: manifest unknown", reason="image_pull_failed")
            self.images[reference] = found
            return replace(found, reference=reference)

    async def find_image(self, reference: str) -> ImageInfo | None:
        with self._record("find_image", reference):
            known = {image.id: image for image in self.images.values()}
            found = self.images.get(reference) or known.get(reference)
            return replace(found, reference=reference) if found is not None else None

    async def compose_containers(self, project: str) -> Mapping[str, str]:
        with self._record("compose_containers", project):
            return {service: container for (owner, service), container in self.compose.items() if owner == project}

    async def networks_exist(self, names: tuple[str, ...]) -> tuple[str, ...]:
        with self._record("networks_exist", ",".join(names)):
            return tuple(name for name in names if name not in self.networks)

    async def existing_volumes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        with self._record("existing_volumes", ",".join(names)):
            return tuple(name for name in names if name in self.volumes)

    async def start(self, spec: InstanceSpec) -> ContainerView:
        await self._pause()
        with self._record("start", spec.id):
            self.volumes |= {volume.source or "" for volume in spec.fields.volumes if volume.type == "volume"}
            if spec.id in self._occupied:
                raise EngineError(
                    f'A container called "{spec.id}" already exists and is not this instance; it is left alone'
                )
            self._refuse_mounts(spec)
            existing = self.containers.get(spec.id)
            if existing is not None and (existing.spec.service, existing.spec.hash) != (spec.service, spec.hash):
                raise EngineError(
                    f'A container called "{spec.id}" already exists and is not this instance (sluice.hash differ); '
                    "it is left alone"
                )
            if existing is not None and existing.state != "created":
                return existing.view
            container = existing or Container(spec, hashlib.sha256(f"{next(self._numbers)}".encode()).hexdigest())
            self.containers[spec.id] = container
            try:
                await self._pause(self._behaviour(container).start_takes)
                self._refuse_start(container)
            except EngineError:
                self.containers.pop(spec.id, None)
                raise
            self._run(container)
            return container.view

    def _refuse_mounts(self, spec: InstanceSpec) -> None:
        for volume in spec.fields.volumes:
            if volume.type == "volume" and volume.source in self.bound_volumes:
                path = self.bound_volumes[volume.source]
                raise EngineError(f'The volume "{volume.source}" stands for the host path {path}', reason="mount_refused")
            path = volume.host_path
            link = next((link for link in self.links if f"{path}/".startswith(f"{link}/")), None)
            if volume.type == "bind" and (link is not None or path in self.missing):
                why = "No such file or directory"
                if link is not None:
                    why = f"is a symbolic link to {self.links[link]}{path[len(link) :]}"
                raise EngineError(f"The host path {path} is not mounted: it {why}", reason="mount_refused")

    async def enable_auto_restart(self, instance: str, container: str | None = None) -> None:
        with self._record("enable_auto_restart", instance):
            found = self._must_find(instance, container)
            if not self.forgets_policies:
                found.auto_restart = True

    async def reconnect(self, instance: str, address: str, container: str | None = None) -> None:
        with self._record("reconnect", instance):
            if (found := self._find(instance, container)) is not None:
                found.address = address

    async def observe(self, service: str | None = None) -> list[ContainerView]:
        await self._pause()
        with self._record("observe", service or ""):
            views = [container.view for container in self.containers.values() if service in (None, container.spec.service)]
            self._random.shuffle(views)
            return views

    async def stop(self, instance: str, grace: float, container: str | None = None) -> ContainerView | None:
        await self._pause()
        with self._record("stop", instance):
            return await self._stop(self._find(instance, container), grace)

    async def _stop(self, container: Container | None, grace: float) -> ContainerView | None:
        if container is None or container.state not in ("running", "restarting"):
            return container.view if container else None
        container.auto_restart = False
        if container.state == "restarting":
            container.state = "exited"
            return container.view
        behaviour = self._behaviour(container)
        dies_alone = behaviour.stop_takes is not None and behaviour.stop_takes <= grace
        begun = container.starts
        await self._pause((behaviour.stop_takes or 0) if dies_alone else grace)
        if container.state == "running" and container.starts == begun:
            self._exit(container, behaviour.stop_code if dies_alone else _KILLED, stays_down=True)
        return container.view if any(each is container for each in self.containers.values()) else None

    async def remove(self, instance: str, container: str | None = None) -> None:
        await self._pause()
        with self._record("remove", instance):
            found = self._find(instance, container)
            if found is None:
                return
            if found.state in ("running", "restarting"):
                raise EngineError(f"You cannot remove a running container {found.id}. Stop the container first")
            self._destroy(found)

    async def usage(self, instance: str, container: str | None = None) -> Usage | None:
        """Return 16 MiB, and a tenth of a core for as long as the clock runs."""
        with self._record("usage", instance):
            found = self._find(instance, container)
            if found is None or found.state != "running":
                return None
            resources = found.spec.fields.resources
            limit = resources.memory if resources else None
            return Usage(self.clock.now() / 10, 16 * 1024**2, limit)

    async def logs(
        self,
        instance: str,
        container: str | None = None,
        *,
        tail: int = 200,
        since: float | None = None,
        timestamps: bool = False,
    ) -> str:
        with self._record("logs", instance):
            found = self._must_find(instance, container)
            lines = range(found.first(tail, since), len(found.log))
            return "".join(f"{found.line(number, timestamps)}\n" for number in lines)

    async def follow_logs(
        self,
        instance: str,
        container: str | None = None,
        *,
        tail: int = 200,
        since: float | None = None,
        timestamps: bool = False,
    ) -> AsyncGenerator[str]:
        found = self._must_find(instance, container)
        reported = found.first(tail, since)
        while True:
            while reported < len(found.log):
                reported += 1
                yield found.line(reported - 1, timestamps)
            if found.state in ("created", "exited"):
                return
            await found.changed.wait()

    async def events(self) -> AsyncGenerator[EngineEvent]:
        queue: asyncio.Queue[EngineEvent] = asyncio.Queue()
        if not self._unreachable:
            queue.put_nowait(EngineEvent("reconnected"))
        self._readers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._readers.remove(queue)

    async def build(self, spec: BuildSpec) -> AsyncGenerator[str]:
        with self._record("build", spec.tag):
            self.dockerfiles[spec.tag] = dockerfile_of(spec)
            async with aclosing(steps(spec, self.dockerfiles[spec.tag])) as lines:
                async for line in lines:
                    await self._pause()
                    yield line
            self.add_image(spec.tag, pulled=False)
            self.built.add(spec.tag)

    async def tag(self, image: str, tag: str) -> None:
        with self._record("tag", tag):
            known = {found.id: found for found in self.images.values()}
            if image not in known:
                raise EngineError(f"No such image: {image}")
            self.images[tag] = replace(known[image], reference=tag)

    async def prune(self, keep: frozenset[str]) -> tuple[str, ...]:
        with self._record("prune", ""):
            used = {container.spec.image_id for container in self.containers.values()}
            names = Counter(image.id for image in self.images.values())
            removable = {tag for tag in self.built - keep if names[self.images[tag].id] == 1}
            removed = {tag for tag in removable if self.images[tag].id not in used}
            for tag in removed:
                del self.images[tag]
            self.built -= removed
            return tuple(sorted(removed))

    # Implementation

    @contextmanager
    def _record(self, call: Call, about: str) -> Iterator[None]:
        self.calls.append((call, about))
        if self._unreachable:
            raise EngineError("The engine does not answer: it is away", transient=True)
        failure = self._failures[call].pop(0) if self._failures[call] else None
        if failure is not None and not failure[1]:
            raise failure[0]
        yield
        if failure is not None:
            raise failure[0]

    async def _pause(self, seconds: float = 0) -> None:
        """Yield to the event loop at least once, as a call to a real engine does."""
        if seconds > 0:
            await self._sleep(seconds)
        else:
            await asyncio.sleep(0)

    def _behaviour(self, container: Container) -> Behaviour:
        spec = container.spec
        names = [reference for reference, image in self.images.items() if image.id == spec.image_id]
        for subject in (spec.id, spec.image_id, *names, spec.service):
            if subject in self._behaviours:
                return self._behaviours[subject]
        return Behaviour()

    def _find(self, instance: str, id: str | None) -> Container | None:
        if id is None:
            return self.containers.get(instance)
        return next((each for each in self.containers.values() if (each.spec.id, each.id) == (instance, id)), None)

    def _must_find(self, instance: str, id: str | None) -> Container:
        found = self._find(instance, id)
        if found is None:
            raise EngineError(f"{instance} was removed", reason="instance_gone")
        return found

    def _refuse_start(self, container: Container) -> None:
        spec = container.spec
        if spec.image_id not in {image.id for image in self.images.values()}:
            raise EngineError(f"No such image: {spec.image_id}", reason=IMAGE_GONE)
        for network in spec.fields.networks:
            if network not in self.networks:
                raise EngineError(f"network {network} not found")
        others = [other for other in self.containers.values() if other.state == "running"]
        if any(other.spec.address == spec.address for other in others):
            raise EngineError("Address already in use", reason="no_capacity")
        if spec.host_port in {*self.taken_ports, *(other.spec.host_port for other in others)} - {None}:
            raise EngineError(f"Bind for 0.0.0.0:{spec.host_port} failed: port is already allocated", reason="port_taken")
        if self.capacity is not None and len(others) >= self.capacity:
            raise EngineError("cannot allocate memory", reason="no_capacity")

    def _run(self, container: Container) -> None:
        behaviour = self._behaviour(container)
        container.state, container.exit_code, container.oom_killed = "running", None, False
        container.starts += 1
        container.started_at = timestamp(self.clock.now(), container.starts)
        container.health = "starting" if container.spec.healthcheck and container.spec.healthcheck.test else "none"
        container.write(behaviour.log, self.clock.now())
        self.busiest = max(self.busiest, len(self.running))
        container.wake()
        self._emit(container.event("start"))
        if behaviour.exits_at_once is not None:
            self._exit(container, behaviour.exits_at_once)
        elif behaviour.exits_after is not None:
            self._later(behaviour.exits_after[0], container, behaviour.exits_after[1])

    def _exit(self, container: Container, code: int | None, *, oom: bool = False, stays_down: bool = False) -> None:
        returns = container.auto_restart and not stays_down
        container.state = "restarting" if returns else "exited"
        container.exit_code, container.oom_killed = code, oom
        container.wake()
        self._emit(container.event("die", code))
        if returns:
            container.restarts += 1
            self._later(0.1 * 2 ** min(container.restarts - 1, 9), container, None)

    def _later(self, seconds: float, container: Container, code: int | None) -> None:
        """After `seconds`, exit with `code`, or start again if it is None.

        Nothing happens if the container was started or removed in between.
        """
        begun = container.starts

        async def wait() -> None:
            await self._sleep(seconds)
            if container.starts != begun or self.containers.get(container.spec.id) is not container:
                return
            if code is not None and container.state == "running":
                self._exit(container, code)
            elif code is None and container.state == "restarting":
                self._run(container)

        task = asyncio.get_running_loop().create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _destroy(self, container: Container) -> None:
        name = container.name or container.spec.id
        if self.containers.get(name) is container:
            del self.containers[name]
            self._emit(container.event("destroy"))

    def _emit(self, event: EngineEvent) -> None:
        if event.kind != "reconnected" and (self._unreachable or self._lost_events > 0):
            self._lost_events = max(0, self._lost_events - 1)
            return
        for queue in self._readers:
            queue.put_nowait(event)
