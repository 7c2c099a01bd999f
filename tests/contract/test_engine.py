"""The contract of every engine: Docker, and the fake that the rollouts are tested with."""

from __future__ import annotations

import asyncio
import io
import re
import secrets
import socket
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

import pytest

from services.clock import SystemClock
from services.engine.docker.engine import DockerEngine
from services.engine.port import BuildSpec, ContainerView, Engine, EngineError, EngineEvent, InstanceSpec
from services.spec import Healthcheck, Resources, VolumeMount
from tests.support.docker_fixture import IMAGE, DockerFixture, open_docker_fixture
from tests.support.fakes.engine import Behaviour, FakeEngine
from tests.support.instance_specs import make_instance_spec

pytestmark = pytest.mark.anyio


class EngineHarness(Protocol):
    """An engine, and what a test does to it from outside."""

    @property
    def engine(self) -> Engine: ...

    def spec(self, id: str, behaviour: Behaviour = ..., **fields: Any) -> InstanceSpec: ...
    def become_healthy(self, instance: str) -> None: ...
    def disconnect(self, instance: str, address: str | None = None) -> None: ...
    def pause(self, instance: str, *, paused: bool = True) -> None: ...
    def take_name(self, instance: str) -> None: ...
    def forget(self, tag: str) -> None: ...
    def compose(self, project: str, service: str) -> AbstractContextManager[str]: ...
    def link(self, path: Path, target: str) -> None: ...
    def lose(self, path: Path) -> None: ...
    def bound_volume(self, path: Path) -> AbstractContextManager[str]: ...


class FakeEngineHarness:
    def __init__(self) -> None:
        self.engine = FakeEngine(SystemClock())
        settings = {"interval": 3.0, "timeout": 2.0, "start_period": 4.0, "retries": 5}
        self.image = self.engine.add_image(
            IMAGE, healthcheck=("CMD-SHELL", "test -f /tmp/healthy"), settings=settings, pulled=False
        )
        self.hosts = iter(range(2, 250))

    def spec(self, id: str, behaviour: Behaviour = Behaviour(), **fields: Any) -> InstanceSpec:  # noqa: B008
        self.engine.behave(id, behaviour)
        given = {"image_id": self.image.id, "address": f"10.0.0.{next(self.hosts)}", **fields}
        return make_instance_spec(id, **given)

    def become_healthy(self, instance: str) -> None:
        self.engine.set_health(instance, "healthy")

    def disconnect(self, instance: str, address: str | None = None) -> None:
        self.engine.disconnect(instance, address)

    def pause(self, instance: str, *, paused: bool = True) -> None:
        self.engine.pause(instance, paused=paused)

    def take_name(self, instance: str) -> None:
        self.engine.occupy(instance)

    def forget(self, tag: str) -> None:
        del self.engine.images[tag]

    @contextmanager
    def compose(self, project: str, service: str) -> Iterator[str]:
        name = self.engine.compose[project, service] = f"{project}-{service}-1"
        yield name
        del self.engine.compose[project, service]

    def link(self, path: Path, target: str) -> None:
        self.engine.links[str(path)] = str(path.parent / target)

    def lose(self, path: Path) -> None:
        self.engine.missing.add(str(path))

    @contextmanager
    def bound_volume(self, path: Path) -> Iterator[str]:
        self.engine.bound_volumes["bound"] = str(path)
        yield "bound"
        del self.engine.bound_volumes["bound"]


class DockerEngineHarness:
    def __init__(self, docker_fixture: DockerFixture) -> None:
        self.fixture = docker_fixture
        self.engine = DockerEngine(docker_fixture.name, docker_fixture.name, IMAGE)

    def spec(self, id: str, behaviour: Behaviour = Behaviour(), **fields: Any) -> InstanceSpec:  # noqa: B008
        return self.fixture.spec(id, script=_script(behaviour), **fields)

    def become_healthy(self, instance: str) -> None:
        self.fixture.execute(instance, "touch", "/tmp/healthy")

    def disconnect(self, instance: str, address: str | None = None) -> None:
        client, container = self.fixture.client, f"{self.fixture.name}-{instance}"
        client.disconnect_container_from_network(container, self.fixture.name)
        if address is not None:
            client.connect_container_to_network(container, self.fixture.name, ipv4_address=address)

    def pause(self, instance: str, *, paused: bool = True) -> None:
        container = f"{self.fixture.name}-{instance}"
        (self.fixture.client.pause if paused else self.fixture.client.unpause)(container)

    def take_name(self, instance: str) -> None:
        self.fixture.client.create_container(
            self.fixture.image_id, name=f"{self.fixture.name}-{instance}", labels={"sluice.name": self.fixture.name}
        )

    def forget(self, tag: str) -> None:
        self.fixture.client.remove_image(tag)

    @contextmanager
    def compose(self, project: str, service: str) -> Iterator[str]:
        """Run a container as Compose does: with Compose's labels and none of Sluice's."""
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
        name = f"{self.fixture.name}-{project}-{service}-1"
        made = self.fixture.client.create_container(self.fixture.image_id, ["sleep", "60"], name=name, labels=labels)["Id"]
        try:
            self.fixture.client.start(made)
            yield name
        finally:
            self.fixture.client.remove_container(made, v=True, force=True)

    def link(self, path: Path, target: str) -> None:
        path.symlink_to(target)

    def lose(self, path: Path) -> None:
        path.rmdir()

    @contextmanager
    def bound_volume(self, path: Path) -> Iterator[str]:
        options = {"type": "none", "o": "bind", "device": str(path)}
        name = f"{self.fixture.name}-bound"
        self.fixture.client.create_volume(name, driver="local", driver_opts=options)
        yield name
        self.fixture.client.remove_volume(name, force=True)


def _script(behaviour: Behaviour) -> str:
    """Return a shell script that behaves so.

    As process 1, a shell ignores every signal without a trap.
    """
    lines = [f"echo '{line}'" for line in behaviour.log.splitlines()]
    if behaviour.stop_takes is not None:
        lines.insert(0, f"trap 'sleep {behaviour.stop_takes}; exit {behaviour.stop_code}' TERM")
    if behaviour.exits_at_once is not None:
        lines.append(f"exit {behaviour.exits_at_once}")
    elif behaviour.exits_after is not None:
        lines += [f"sleep {behaviour.exits_after[0]}", f"exit {behaviour.exits_after[1]}"]
    lines.append("while :; do sleep 1 & wait $!; done")
    return "\n".join(lines)


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[EngineHarness]:
    if request.param == "fake":
        fake = FakeEngineHarness()
        yield fake
        fake.engine.close()
        return
    with open_docker_fixture() as place:
        real = DockerEngineHarness(place)
        yield real
        real.engine.close()


class EventRecorder:
    """The events received so far, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self._news = asyncio.Condition()

    async def listen(self, engine: Engine) -> None:
        async with aclosing(engine.events()) as stream:  # type: ignore[type-var]
            async for event in stream:
                async with self._news:
                    self.events.append(event)
                    self._news.notify_all()

    async def until(self, wanted: Callable[[EngineEvent], bool]) -> EngineEvent:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: any(wanted(event) for event in self.events))
        return next(event for event in self.events if wanted(event))

    async def heard(self, kind: str, instance: str = "") -> EngineEvent:
        return await self.until(lambda event: event.kind == kind and event.instance == instance)


@pytest.fixture
async def recorded_events(harness: EngineHarness) -> AsyncIterator[EventRecorder]:
    ears = EventRecorder()
    task = asyncio.create_task(ears.listen(harness.engine))
    await ears.heard("reconnected")
    yield ears
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def seen(harness: EngineHarness, instance: str) -> ContainerView | None:
    found = [view for view in await harness.engine.observe() if view.instance == instance]
    assert len(found) < 2
    return found[0] if found else None


async def test_started_instance_matches_its_spec(harness: EngineHarness) -> None:
    spec = harness.spec("web-r4-2", deployment=17)
    started = await harness.engine.start(spec)
    assert started == await seen(harness, "web-r4-2")
    assert (started.service, started.revision, started.deployment, started.slot) == ("web", 4, 17, 2)
    assert (started.hash, started.address, started.state) == (spec.hash, spec.address, "running")
    assert (started.auto_restart, started.restarts, started.exit_code, started.oom_killed) == (False, 0, None, False)


async def test_repeated_start_returns_the_existing_instance(harness: EngineHarness) -> None:
    spec = harness.spec("web-r1-1")
    assert await harness.engine.start(spec) == await harness.engine.start(spec)
    assert len(await harness.engine.observe()) == 1


async def test_exited_instance_is_not_started_again(harness: EngineHarness, recorded_events: EventRecorder) -> None:
    spec = harness.spec("web-r1-1", Behaviour(exits_at_once=3))
    first = await harness.engine.start(spec)
    await recorded_events.heard("die", "web-r1-1")
    again = await harness.engine.start(spec)
    assert (again.state, again.exit_code, again.start_id) == ("exited", 3, first.start_id)


async def test_start_with_another_hash_is_refused_and_changes_nothing(harness: EngineHarness) -> None:
    spec = harness.spec("web-r1-1")
    before = await harness.engine.start(spec)
    with pytest.raises(EngineError, match="left alone"):
        await harness.engine.start(replace(spec, hash="other"))
    assert await seen(harness, "web-r1-1") == before


async def test_foreign_container_with_the_instances_name_is_left_alone(harness: EngineHarness) -> None:
    harness.take_name("web-r1-1")
    with pytest.raises(EngineError, match="left alone"):
        await harness.engine.start(harness.spec("web-r1-1"))
    assert await harness.engine.observe() == []
    assert await harness.engine.stop("web-r1-1", 1) is None
    await harness.engine.remove("web-r1-1")
    with pytest.raises(EngineError, match="left alone"):
        await harness.engine.start(harness.spec("web-r1-1"))


async def test_observe_returns_instances_of_one_service_or_of_all(harness: EngineHarness) -> None:
    for id in ("web-r1-1", "web-r1-2", "api-r1-1"):
        await harness.engine.start(harness.spec(id))
    assert {view.instance for view in await harness.engine.observe("web")} == {"web-r1-1", "web-r1-2"}
    assert len(await harness.engine.observe()) == 3
    assert await harness.engine.observe("we") == []


async def test_taken_address_fails_with_no_capacity_and_leaves_nothing(harness: EngineHarness) -> None:
    first = await harness.engine.start(harness.spec("web-r1-1"))
    with pytest.raises(EngineError) as refused:
        await harness.engine.start(harness.spec("web-r1-2", address=first.address))
    assert refused.value.reason == "no_capacity"
    assert [view.instance for view in await harness.engine.observe()] == ["web-r1-1"]


async def test_taken_host_port_fails_with_port_taken_and_leaves_nothing(harness: EngineHarness) -> None:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    await harness.engine.start(harness.spec("web-r1-1", port=port, host_port=port))
    with pytest.raises(EngineError) as refused:
        await harness.engine.start(harness.spec("web-r1-2", port=port, host_port=port))
    assert (refused.value.reason, refused.value.transient) == ("port_taken", False)
    assert [view.instance for view in await harness.engine.observe()] == ["web-r1-1"]


async def test_missing_image_fails_with_image_gone_and_leaves_nothing(harness: EngineHarness) -> None:
    with pytest.raises(EngineError, match="No such image") as refused:
        await harness.engine.start(harness.spec("web-r1-1", image_id="sha256:" + 64 * "0"))
    assert (refused.value.reason, refused.value.transient) == ("image_gone", False)
    assert await harness.engine.observe() == []


async def test_missing_network_fails_with_engine_error_and_leaves_nothing(harness: EngineHarness) -> None:
    with pytest.raises(EngineError, match="not found"):
        await harness.engine.start(harness.spec("web-r1-1", networks=("sluice-test-nowhere",)))
    assert await harness.engine.observe() == []


async def test_existing_volumes_returns_the_volumes_of_started_instances(harness: EngineHarness) -> None:
    name = f"sluice-test-{uuid4().hex[:8]}"
    assert await harness.engine.existing_volumes((name,)) == ()
    mount = VolumeMount(source=name, target="/data")
    await harness.engine.start(harness.spec("web-r1-1", volumes=(mount,)))
    assert await harness.engine.existing_volumes((name, "sluice-test-nowhere")) == (name,)


def mounted(path: Path | str, kind: Literal["bind", "volume"] = "bind") -> tuple[VolumeMount, ...]:
    return (VolumeMount(type=kind, source=str(path), target="/data"),)


async def test_host_path_is_mounted(harness: EngineHarness, tmp_path: Path) -> None:
    view = await harness.engine.start(harness.spec("web-r1-1", volumes=mounted(tmp_path)))
    assert view.state == "running"


@pytest.mark.parametrize("target", ["/", "/etc", "/nowhere", "../../../../../../etc", "beside", "host/etc"])
@pytest.mark.parametrize("below", ["", "/inside"])
async def test_host_path_with_a_symbolic_link_is_refused_and_leaves_nothing(
    harness: EngineHarness, tmp_path: Path, target: str, below: str
) -> None:
    (tmp_path / "beside" / "inside").mkdir(parents=True)
    harness.link(tmp_path / "link", target)
    with pytest.raises(EngineError, match=re.escape(f"{tmp_path}/link{below}")) as refused:
        await harness.engine.start(harness.spec("web-r1-1", volumes=mounted(f"{tmp_path}/link{below}")))
    assert (refused.value.reason, refused.value.transient) == ("mount_refused", False)
    assert await harness.engine.observe() == []


async def test_missing_host_path_is_refused(harness: EngineHarness, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    path.mkdir()
    harness.lose(path)
    with pytest.raises(EngineError, match="No such file") as refused:
        await harness.engine.start(harness.spec("web-r1-1", volumes=mounted(path)))
    assert refused.value.reason == "mount_refused"


async def test_volume_bound_to_a_host_path_is_refused(harness: EngineHarness, tmp_path: Path) -> None:
    with harness.bound_volume(tmp_path) as name:
        with pytest.raises(EngineError, match=f"the host path {tmp_path}") as refused:
            await harness.engine.start(harness.spec("web-r1-1", volumes=mounted(name, "volume")))
        assert refused.value.reason == "mount_refused"
        assert await harness.engine.observe() == []


async def test_networks_exist_returns_the_missing_networks(harness: EngineHarness) -> None:
    assert await harness.engine.networks_exist(()) == ()
    assert await harness.engine.networks_exist(("bridge", "sluice-test-nowhere")) == ("sluice-test-nowhere",)


async def test_host_network_counts_as_missing(harness: EngineHarness) -> None:
    assert await harness.engine.networks_exist(("host", "none")) == ("host", "none")


async def test_compose_containers_returns_the_running_containers_of_a_project(harness: EngineHarness) -> None:
    project = "sluice-test-shop"
    assert await harness.engine.compose_containers(project) == {}
    with harness.compose(project, "web") as name, harness.compose("sluice-test-blog", "api"):
        assert await harness.engine.compose_containers(project) == {"web": name}
    assert await harness.engine.compose_containers(project) == {}


async def test_enable_auto_restart_is_idempotent_and_needs_an_instance(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1"))
    await harness.engine.enable_auto_restart("web-r1-1")
    await harness.engine.enable_auto_restart("web-r1-1")
    view = await seen(harness, "web-r1-1")
    assert view is not None and view.auto_restart
    with pytest.raises(EngineError) as refused:
        await harness.engine.enable_auto_restart("web-r1-9")
    assert refused.value.reason == "instance_gone"


async def test_instance_with_auto_restart_restarts_with_a_new_start_id(
    harness: EngineHarness, recorded_events: EventRecorder
) -> None:
    first = await harness.engine.start(harness.spec("web-r1-1", Behaviour(exits_after=(1, 7))))
    await harness.engine.enable_auto_restart("web-r1-1")
    died = await recorded_events.heard("die", "web-r1-1")
    assert (died.start_id, died.exit_code, died.container_id) == (first.start_id, 7, first.container_id)
    await recorded_events.until(lambda event: [other.kind for other in recorded_events.events].count("start") == 2)
    view = await seen(harness, "web-r1-1")
    assert view is not None and (view.state, view.auto_restart) == ("running", True)
    assert (view.container_id, view.address) == (first.container_id, first.address)
    assert view.start_id != first.start_id and view.restarts >= 1
    again = await recorded_events.until(lambda event: event.kind == "die" and event.start_id != first.start_id)
    assert again.start_id == view.start_id


async def test_stop_waits_for_the_process_to_exit(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(stop_takes=0.2, stop_code=5)))
    await harness.engine.enable_auto_restart("web-r1-1")
    stopped = await harness.engine.stop("web-r1-1", 10)
    assert stopped is not None and (stopped.state, stopped.exit_code, stopped.auto_restart) == ("exited", 5, False)
    assert stopped == await harness.engine.stop("web-r1-1", 10) == await seen(harness, "web-r1-1")
    assert await harness.engine.stop("web-r1-9", 10) is None


async def test_stop_kills_a_process_that_ignores_the_signal(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(stop_takes=None)))
    stopped = await harness.engine.stop("web-r1-1", 1)
    assert stopped is not None and (stopped.state, stopped.exit_code) == ("exited", 137)


async def test_remove_requires_a_stopped_instance_and_is_idempotent(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1"))
    with pytest.raises(EngineError, match="running"):
        await harness.engine.remove("web-r1-1")
    await harness.engine.stop("web-r1-1", 5)
    await harness.engine.remove("web-r1-1")
    await harness.engine.remove("web-r1-1")
    assert await harness.engine.observe() == []


async def test_events_report_start_die_and_destroy_with_the_start_id(
    harness: EngineHarness, recorded_events: EventRecorder
) -> None:
    started = await harness.engine.start(harness.spec("web-r1-1"))
    await harness.engine.stop("web-r1-1", 5)
    await harness.engine.remove("web-r1-1")
    await recorded_events.heard("destroy", "web-r1-1")
    mine = [event for event in recorded_events.events if event.instance == "web-r1-1"]
    assert [event.kind for event in mine] == ["start", "die", "destroy"]
    assert {event.service for event in mine} == {"web"} and {event.container_id for event in mine} == {started.container_id}
    assert (mine[1].start_id, mine[1].exit_code) == (started.start_id, 0)
    assert recorded_events.events[0].kind == "reconnected" and not recorded_events.events[0].instance


async def test_immediate_exit_is_reported_with_its_code(harness: EngineHarness, recorded_events: EventRecorder) -> None:
    started = await harness.engine.start(harness.spec("web-r1-1", Behaviour(exits_at_once=42)))
    died = await recorded_events.heard("die", "web-r1-1")
    assert (died.exit_code, died.start_id) == (42, started.start_id)
    view = await seen(harness, "web-r1-1")
    assert view is not None and (view.state, view.exit_code) == ("exited", 42)


async def test_health_of_a_container_check_is_reported(harness: EngineHarness, recorded_events: EventRecorder) -> None:
    check = Healthcheck(test=["CMD-SHELL", "test -f /tmp/healthy"], interval=0.2, timeout=2, retries=50, start_period=30)
    started = await harness.engine.start(harness.spec("web-r1-1", healthcheck=check))
    assert started.health == "starting"
    harness.become_healthy("web-r1-1")
    await recorded_events.heard("health", "web-r1-1")
    view = await seen(harness, "web-r1-1")
    assert view is not None and view.health == "healthy"


async def test_disconnection_is_reported_and_undone_by_a_reconnection(
    harness: EngineHarness, recorded_events: EventRecorder
) -> None:
    started = await harness.engine.start(harness.spec("web-r1-1"))
    harness.disconnect("web-r1-1")
    event = await recorded_events.heard("disconnect", "web-r1-1")
    assert (event.service, event.start_id) == ("web", started.start_id)
    view = await seen(harness, "web-r1-1")
    assert view is not None and (view.state, view.address) == ("running", None)
    for _ in range(2):
        await harness.engine.reconnect("web-r1-1", started.address or "")
        assert await seen(harness, "web-r1-1") == started
    other = harness.spec("web-r1-2").address
    harness.disconnect("web-r1-1", other)
    await until_seen(harness, lambda view: view.address == other)
    await harness.engine.reconnect("web-r1-1", started.address or "")
    assert await seen(harness, "web-r1-1") == started


async def test_restarted_container_is_not_reported_as_disconnected(
    harness: EngineHarness, recorded_events: EventRecorder
) -> None:
    behaviour = Behaviour(exits_after=(0.3, 1))
    started = await harness.engine.start(harness.spec("web-r1-1", behaviour))
    await harness.engine.enable_auto_restart("web-r1-1")
    await until_seen(harness, lambda view: view.restarts >= 3)
    assert "disconnect" not in {event.kind for event in recorded_events.events}
    dead = [event.start_id for event in recorded_events.events if event.kind == "die"]
    assert started.start_id in dead and len(dead) == len(set(dead))
    await harness.engine.stop("web-r1-1", 0)


async def until_seen(harness: EngineHarness, condition: Callable[[ContainerView], bool]) -> None:
    async with asyncio.timeout(20):
        while (view := await seen(harness, "web-r1-1")) is None or not condition(view):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)


async def test_paused_container_is_reported_as_running_and_paused(
    harness: EngineHarness, recorded_events: EventRecorder
) -> None:
    await harness.engine.start(harness.spec("web-r1-1"))
    harness.pause("web-r1-1")
    await recorded_events.heard("health", "web-r1-1")
    view = await seen(harness, "web-r1-1")
    assert view is not None and (view.state, view.paused) == ("running", True)
    harness.pause("web-r1-1", paused=False)
    await until_seen(harness, lambda view: not view.paused)


async def test_probe_by_sluice_disables_the_images_health_check(harness: EngineHarness) -> None:
    started = await harness.engine.start(harness.spec("web-r1-1", healthcheck=Healthcheck(tcp=True)))
    assert started.health == "none"


async def test_usage_is_reported_for_running_instances_only(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1", resources=Resources(memory=64 * 1024**2)))
    await harness.engine.start(harness.spec("web-r1-2"))
    first = await harness.engine.usage("web-r1-1")
    assert first is not None
    assert first.cpu_seconds > 0
    assert (0 < first.memory < 64 * 1024**2, first.memory_limit) == (True, 64 * 1024**2)
    other = await harness.engine.usage("web-r1-2")
    assert other is not None
    assert other.memory_limit is None
    await harness.engine.stop("web-r1-1", 0)
    assert await harness.engine.usage("web-r1-1") is None
    assert await harness.engine.usage("web-r1-9") is None


async def test_logs_return_the_last_lines(harness: EngineHarness, recorded_events: EventRecorder) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(log="one\ntwo\nthree", exits_at_once=1)))
    await recorded_events.heard("die", "web-r1-1")
    assert await harness.engine.logs("web-r1-1") == "one\ntwo\nthree\n"
    assert await harness.engine.logs("web-r1-1", tail=2) == "two\nthree\n"
    with pytest.raises(EngineError) as refused:
        await harness.engine.logs("web-r1-9")
    assert refused.value.reason == "instance_gone"


async def test_log_lines_may_have_timestamps(harness: EngineHarness, recorded_events: EventRecorder) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(log="one\ntwo", exits_after=(0.5, 1))))
    followed = [line async for line in harness.engine.follow_logs("web-r1-1", timestamps=True)]
    await recorded_events.heard("die", "web-r1-1")
    lines = (await harness.engine.logs("web-r1-1", timestamps=True)).splitlines()
    assert lines == followed
    times, words = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert words == ("one", "two")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", time) for time in times)
    assert times[0] < times[1]


async def test_logs_are_read_since_a_time(harness: EngineHarness, recorded_events: EventRecorder) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(log="one\ntwo\nthree", exits_at_once=1)))
    await recorded_events.heard("die", "web-r1-1")
    at = [line.split(" ")[0] for line in (await harness.engine.logs("web-r1-1", timestamps=True)).splitlines()]
    seconds = [datetime.fromisoformat(time).timestamp() for time in at]
    assert (await harness.engine.logs("web-r1-1", since=seconds[1])).endswith("two\nthree\n")
    assert await harness.engine.logs("web-r1-1", since=seconds[2] + 1) == ""
    followed = [line async for line in harness.engine.follow_logs("web-r1-1", since=seconds[1])]
    assert followed[-2:] == ["two", "three"]


async def test_followed_logs_end_when_the_container_exits(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(log="hello\nworld", exits_after=(0.5, 0))))
    async with asyncio.timeout(20):
        lines = [line async for line in harness.engine.follow_logs("web-r1-1")]
    assert lines == ["hello", "world"]
    with pytest.raises(EngineError):
        await anext(aiter(harness.engine.follow_logs("web-r1-9")))


async def test_follower_of_logs_may_stop_early(harness: EngineHarness) -> None:
    await harness.engine.start(harness.spec("web-r1-1", Behaviour(log="hello")))
    async with asyncio.timeout(20), aclosing(harness.engine.follow_logs("web-r1-1")) as lines:  # type: ignore[type-var]
        assert await anext(lines) == "hello"


async def test_local_image_is_pulled_without_a_registry(harness: EngineHarness) -> None:
    image = await harness.engine.pull(IMAGE)
    assert image.reference == IMAGE and image.id.startswith("sha256:")
    assert image.exposed_ports == (8000,)
    assert image.healthcheck == ("CMD-SHELL", "test -f /tmp/healthy")
    assert image.healthcheck_settings == {"interval": 3, "timeout": 2, "start_period": 4, "retries": 5}
    assert (await harness.engine.pull(image.id)).id == image.id


async def test_find_image_returns_local_images_and_pulls_nothing(harness: EngineHarness) -> None:
    pulled = await harness.engine.pull(IMAGE)
    assert await harness.engine.find_image(IMAGE) == pulled
    assert await harness.engine.find_image("127.0.0.1:9/missing/nothing:1") is None
    assert await harness.engine.find_image("no:reference:at-all") is None


async def test_pull_of_a_missing_image_fails(harness: EngineHarness) -> None:
    with pytest.raises(EngineError) as refused:
        await harness.engine.pull("127.0.0.1:9/missing/nothing:1")
    assert refused.value.reason == "image_pull_failed" and not refused.value.transient


def context(dockerfile: str) -> BuildSpec:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile.encode())
        archive.addfile(entry, io.BytesIO(dockerfile.encode()))
    name = f"sluice-test-build:{secrets.token_hex(4)}"
    return BuildSpec("web", name, [tar.getvalue()], args={"WORD": secrets.token_hex(4)})


async def test_built_image_is_tagged_and_pruned_once_unused(harness: EngineHarness) -> None:
    spec = context(f"FROM {IMAGE}\nARG WORD\nRUN echo $WORD\n")
    lines = [line async for line in harness.engine.build(spec)]
    assert spec.args["WORD"] in lines and any(spec.tag in line for line in lines)
    built = await harness.engine.find_image(spec.tag)
    assert built is not None and (await harness.engine.pull(spec.tag)).id == built.id
    assert await harness.engine.prune(frozenset({spec.tag})) == ()
    used = harness.spec("web-r1-1", image_id=built.id)
    await harness.engine.start(used)
    assert await harness.engine.prune(frozenset()) == ()
    await harness.engine.stop("web-r1-1", 0)
    await harness.engine.remove("web-r1-1")
    assert await harness.engine.prune(frozenset()) == (spec.tag,)
    assert await harness.engine.find_image(spec.tag) is None


async def test_tag_moves_from_one_image_to_another(harness: EngineHarness) -> None:
    latest = f"sluice-test-build:latest-{secrets.token_hex(4)}"
    for word in ("one", "two"):
        spec = context(f"FROM {IMAGE}\nRUN echo {word}\n")
        assert [line async for line in harness.engine.build(spec)]
        built = await harness.engine.find_image(spec.tag)
        assert built is not None
        await harness.engine.tag(built.id, latest)
        moved = await harness.engine.find_image(latest)
        assert moved is not None and moved.id == built.id
    assert len(await harness.engine.prune(frozenset())) == 1, "an image with a second name is foreign"
    harness.forget(latest)
    assert len(await harness.engine.prune(frozenset())) == 1


async def test_failed_build_raises_the_builders_message(harness: EngineHarness) -> None:
    new = uuid4().hex  # A cached step prints nothing.
    spec = context(f"FROM {IMAGE}\nRUN echo before-{new}\nRUN false\n")
    lines: list[str] = []

    async def build() -> None:
        async for line in harness.engine.build(spec):
            lines.append(line)

    with pytest.raises(EngineError, match="returned a non-zero code: 1") as failed:
        await build()
    assert failed.value.reason == "build_failed" and f"before-{new}" in lines
    assert await harness.engine.find_image(spec.tag) is None


async def test_abandoned_build_is_cancelled(harness: EngineHarness) -> None:
    spec = context(f"FROM {IMAGE}\nRUN true\nRUN sleep 600\n")
    async with asyncio.timeout(30), aclosing(harness.engine.build(spec)) as lines:  # type: ignore[type-var]
        async for line in lines:
            if line.startswith("Step 3"):
                break
    assert await harness.engine.find_image(spec.tag) is None


async def test_ping_returns_versions_and_node_of_the_engine(harness: EngineHarness) -> None:
    facts = await harness.engine.ping()
    assert facts["version"] and facts["api_version"] and facts["node"]
