"""Behaviour that only a real Docker engine shows: ownership, creation, lost connections."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from docker.errors import APIError, NotFound

from services.engine.docker import engine as docker_engine
from services.engine.docker.codec import BUILT, NAME, container_config
from services.engine.docker.engine import DockerEngine
from services.engine.port import EngineError, EngineEvent, LogConfig
from services.spec import Resources, VolumeMount
from tests.support.docker_fixture import IMAGE, DockerFixture, build, open_docker_fixture
from tests.support.engine_proxy import EngineProxy

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

WAITS = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


@pytest.fixture
async def engine_proxy(tmp_path: Path) -> AsyncIterator[EngineProxy]:
    async with EngineProxy(tmp_path / "engine.sock") as it:
        yield it


@pytest.fixture
async def proxied_engine(docker_fixture: DockerFixture, engine_proxy: EngineProxy) -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(docker_fixture.name, docker_fixture.name, IMAGE, base_url=engine_proxy.base_url)
    yield engine
    engine.close()


async def next_event(stream: AsyncIterator[EngineEvent], wanted: Callable[[EngineEvent], bool]) -> EngineEvent:
    async with asyncio.timeout(20):
        async for event in stream:
            if wanted(event):
                return event
    raise AssertionError("the stream ended")


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (neither the engine nor its threads tell)
            await asyncio.sleep(0.01)


async def test_copies_of_an_instance_are_told_by_their_names_and_never_stopped(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    started = await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    labels = docker_fixture.inspect("web-r1-1")["Config"]["Labels"]
    image = docker_fixture.client.commit(started.container_id)["Id"]
    strangers = []
    async with aclosing(engine.events()) as events:
        await anext(events)
        looks = {"other": labels, "None": {key: labels[key] for key in ("sluice.name", "sluice.service")}, "committed": {}}
        for name, worn in looks.items():
            called, alone = f"{docker_fixture.name}-{name}", docker_fixture.client.create_host_config(network_mode="none")
            made = docker_fixture.client.create_container(
                image, name=called, labels=worn, command=["sleep", "9"], host_config=alone
            )
            docker_fixture.client.start(made["Id"])
            strangers.append(made["Id"])
        views = {view.container_id: view for view in await engine.observe()}
        own = (f"{docker_fixture.name}-web-r1-1", False)
        copies = {(f"{docker_fixture.name}-{name}", True) for name in looks}
        assert {(view.name, view.renamed) for view in views.values()} == {own, *copies}
        assert not views[started.container_id].renamed
        assert await engine.stop("other", 0) is None
        await engine.remove("other")
        stopped = await engine.stop("web-r1-1", 0)
        assert stopped is not None and stopped.container_id == started.container_id
        died = await next_event(events, lambda event: event.kind == "die")
        assert (died.container_id, died.renamed) == (started.container_id, False)
    assert all(docker_fixture.client.inspect_container(stranger)["State"]["Running"] for stranger in strangers)
    for stranger in strangers:
        docker_fixture.client.remove_container(stranger, v=True, force=True)
    await engine.remove("web-r1-1")
    docker_fixture.client.remove_image(image)


async def test_renamed_container_is_stopped_and_removed_by_its_id(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    started = await engine.start(docker_fixture.spec("web-r1-1", script=f"echo hello; {WAITS}"))
    docker_fixture.client.rename(started.container_id, f"{docker_fixture.name}-debug")
    (view,) = await engine.observe()
    assert (view.container_id, view.renamed) == (started.container_id, True)
    assert await engine.stop("web-r1-1", 0) is None, "without an id the name decides"
    await engine.enable_auto_restart("web-r1-1", started.container_id)
    assert "hello" in await engine.logs("web-r1-1", started.container_id)
    assert await engine.usage("web-r1-1", started.container_id) is not None
    assert await engine.stop("web-r1-2", 0, started.container_id) is None, "another instance's container"
    stopped = await engine.stop("web-r1-1", 5, started.container_id)
    assert stopped is not None and stopped.state == "exited"
    await engine.remove("web-r1-1", started.container_id)
    assert await engine.observe() == []


async def test_start_without_sluices_network_is_a_transient_error(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    docker_fixture.client.remove_network(docker_fixture.name)
    with pytest.raises(EngineError, match=f'network "{docker_fixture.name}" is missing') as refused:
        await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    assert refused.value.transient
    assert await engine.observe() == []


async def test_engine_hides_instances_of_another_sluice(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    with open_docker_fixture() as other_yard:
        other = DockerEngine(other_yard.name, other_yard.name, IMAGE)
        mine = await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
        async with aclosing(other.events()) as events:
            await anext(events)
            assert await other.observe() == []
            assert await other.stop("web-r1-1", 0) is None
            await engine.stop("web-r1-1", 5)
            theirs = await other.start(other_yard.spec("web-r1-1", script=WAITS))
            reported = await next_event(events, lambda event: event.instance != "")
            assert reported.container_id == theirs.container_id != mine.container_id
        assert [view.container_id for view in await engine.observe()] == [mine.container_id]
        other.close()


async def test_instance_is_created_from_its_spec(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    await engine.start(
        docker_fixture.spec(
            "web-r1-1",
            script=WAITS,
            environment={"GREETING": "a b=c\nd"},
            resources=Resources(cpus=0.5, memory=64 * 1024**2, pids=50),
            hosts={"api": "10.203.255.1"},
            labels={"team": "locks"},
            logging=LogConfig("json-file", {"max-size": "1m"}),
            working_dir="/srv",
            user="www-data",
            stop_signal="SIGINT",
            volumes=(VolumeMount(type="tmpfs", target="/fast"),),
        )
    )
    found = docker_fixture.inspect("web-r1-1")
    host, config = found["HostConfig"], found["Config"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 64 * 1024**2, 50)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    assert host["RestartPolicy"]["Name"] == "no" and not host["Privileged"]
    assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/srv", "www-data", "SIGINT")
    assert config["Labels"]["team"] == "locks" and config["Hostname"] == "web-r1-1"
    assert {"GREETING=a b=c\nd", "SLUICE_INSTANCE=web-r1-1", "SLUICE_SERVICE=web", "SLUICE_REVISION=1"} <= set(config["Env"])
    assert docker_fixture.execute("web-r1-1", "getent", "hosts", "api").split()[:2] == ["10.203.255.1", "api"]
    assert "/fast" in docker_fixture.execute("web-r1-1", "cat", "/proc/mounts")


async def test_instance_joins_the_networks_of_its_spec(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    also = f"{docker_fixture.name}-also"
    docker_fixture.client.create_network(also, driver="bridge", labels={NAME: docker_fixture.name})
    spec = docker_fixture.spec("web-r1-1", script=WAITS, networks=(also,))
    started = await engine.start(spec)
    assert set(docker_fixture.inspect("web-r1-1")["NetworkSettings"]["Networks"]) == {docker_fixture.name, also}
    assert started.address == spec.address
    await engine.stop("web-r1-1", 5)
    await engine.remove("web-r1-1")


async def test_instance_cannot_join_the_network_of_a_sluice(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    """A Sluice's gateway, registry and instances trust every address of its network."""
    other = f"{docker_fixture.name}-other"
    created = docker_fixture.client.create_network(other, driver="bridge", labels={NAME: other})
    try:
        for named in (other, created["Id"], docker_fixture.name):
            assert await engine.networks_exist((named,)) == (named,)
        for named in (other, created["Id"]):
            with pytest.raises(EngineError, match="not open to services"):
                await engine.start(docker_fixture.spec("web-r1-1", script=WAITS, networks=(named,)))
    finally:
        docker_fixture.client.remove_network(other)


async def test_out_of_memory_kill_is_reported(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    """A busy engine may see the exit before the OOM event, and then never reports OOM: tried up to five times."""
    limit = Resources(memory=16 * 1024**2)
    async with aclosing(engine.events()) as events:
        await anext(events)
        for number in range(1, 6):
            await engine.start(docker_fixture.spec(f"web-r1-{number}", entrypoint=("tail", "/dev/zero"), resources=limit))
            died = await next_event(events, lambda event: event.kind == "die")
            view = next(view for view in await engine.observe() if view.instance == f"web-r1-{number}")
            assert (died.exit_code, view.exit_code) == (137, 137)
            if docker_fixture.inspect(f"web-r1-{number}")["State"]["OOMKilled"]:
                break
    assert view.oom_killed


async def test_remove_deletes_anonymous_volumes_and_keeps_named_ones(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    named = f"{docker_fixture.name}-data"
    await engine.start(docker_fixture.spec("web-r1-1", script=WAITS, volumes=(VolumeMount(source=named, target="/data"),)))
    volumes = {mount["Destination"]: mount["Name"] for mount in docker_fixture.inspect("web-r1-1")["Mounts"]}
    assert set(volumes) == {"/data", "/scratch"} and volumes["/data"] == named
    await engine.stop("web-r1-1", 5)
    await engine.remove("web-r1-1")
    with pytest.raises(NotFound):
        docker_fixture.client.inspect_volume(volumes["/scratch"])
    docker_fixture.client.remove_volume(named)


async def test_host_port_of_another_program_fails_with_port_taken(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    with socket.socket() as program:
        program.bind(("0.0.0.0", 0))
        program.listen()
        port = program.getsockname()[1]
        with pytest.raises(EngineError) as refused:
            await engine.start(docker_fixture.spec("web-r1-1", port=port, host_port=port))
    assert refused.value.reason == "port_taken"
    await engine.start(docker_fixture.spec("web-r1-1", port=port, host_port=port))
    found = docker_fixture.inspect("web-r1-1")
    assert found["HostConfig"]["PortBindings"] == {f"{port}/tcp": [{"HostIp": "", "HostPort": str(port)}]}
    assert f"SERVER_PORT={port}" in found["Config"]["Env"]


async def test_full_network_fails_with_no_capacity(
    engine: DockerEngine, docker_fixture: DockerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "MAX_INSTANCES", 1)
    await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    with pytest.raises(EngineError, match="has 1 containers") as refused:
        await engine.start(docker_fixture.spec("web-r1-2", script=WAITS))
    assert refused.value.reason == "no_capacity"
    assert [view.instance for view in await engine.observe()] == ["web-r1-1"]


async def test_created_container_is_started(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    spec = docker_fixture.spec("web-r1-1", script=WAITS)
    started = await engine.start(spec)
    await engine.stop("web-r1-1", 5)
    await engine.remove("web-r1-1")
    body = container_config(spec, docker_fixture.name, docker_fixture.name)
    made = docker_fixture.client.create_container_from_config(body, f"{docker_fixture.name}-web-r1-1")["Id"]
    assert [view.state for view in await engine.observe()] == ["created"]
    again = await engine.start(spec)
    assert (again.container_id, again.state, again.address) == (made, "running", started.address)


async def test_crash_looping_instance_can_be_stopped_between_two_starts(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    await engine.start(docker_fixture.spec("web-r1-1", script="sleep 0.3; exit 4"))
    await engine.enable_auto_restart("web-r1-1")
    await until(lambda: bool(docker_fixture.inspect("web-r1-1")["RestartCount"] >= 2))
    async with asyncio.timeout(15):
        stopped = await engine.stop("web-r1-1", 5)
    assert stopped is not None and (stopped.state, stopped.auto_restart) == ("exited", False)
    await engine.remove("web-r1-1")
    assert await engine.observe() == []


async def test_long_log_line_is_delivered_in_parts(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    script = "head -c 200000 /dev/zero | tr '\\0' x; echo; sleep 0.2"
    await engine.start(docker_fixture.spec("web-r1-1", script=script))
    async with asyncio.timeout(20):
        parts = [part async for part in engine.follow_logs("web-r1-1")]
    assert sum(map(len, parts)) == 200_000 and len(parts) >= 2
    assert max(map(len, parts)) <= 2 * docker_engine.MAX_LINE_BYTES


async def test_event_stream_survives_a_lost_connection(
    docker_fixture: DockerFixture, engine_proxy: EngineProxy, proxied_engine: DockerEngine
) -> None:
    started = await proxied_engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    async with aclosing(proxied_engine.events()) as events:
        assert (await anext(events)).kind == "reconnected"
        assert [view.state for view in await proxied_engine.observe()] == ["running"]
        engine_proxy.slam()
        docker_fixture.client.kill(started.container_id)
        for _ in range(3):
            with pytest.raises(EngineError) as refused:
                await proxied_engine.observe()
            assert refused.value.transient
        engine_proxy.open()
        await next_event(events, lambda event: event.kind == "reconnected")
        assert [view.state for view in await proxied_engine.observe()] == ["exited"]
        assert await proxied_engine.logs("web-r1-1") == ""
        await proxied_engine.remove("web-r1-1")
        await next_event(events, lambda event: event.kind == "destroy")


async def test_concurrent_calls_recover_at_once_from_a_lost_connection(
    docker_fixture: DockerFixture, engine_proxy: EngineProxy, proxied_engine: DockerEngine
) -> None:
    await asyncio.gather(*(proxied_engine.ping() for _ in range(8)))
    engine_proxy.slam()
    with pytest.raises(EngineError):
        await proxied_engine.ping()
    engine_proxy.open()
    await asyncio.gather(*(proxied_engine.ping() for _ in range(8)))


async def test_interrupted_log_stream_raises_a_transient_error(
    docker_fixture: DockerFixture, engine_proxy: EngineProxy, proxied_engine: DockerEngine
) -> None:
    await proxied_engine.start(docker_fixture.spec("web-r1-1", script=f"echo hello; {WAITS}"))
    async with asyncio.timeout(20), aclosing(proxied_engine.follow_logs("web-r1-1")) as lines:
        assert await anext(lines) == "hello"
        engine_proxy.slam()
        with pytest.raises(EngineError) as refused:
            await anext(lines)
    assert refused.value.transient


async def test_view_is_cached_until_an_event_or_a_change(
    engine: DockerEngine, docker_fixture: DockerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(engine.events()) as events:
        await anext(events)
        await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
        await next_event(events, lambda event: event.kind == "start")
        first = await engine.observe()
        with monkeypatch.context() as patched:
            patched.setattr(engine, "_inspect", lambda *_: pytest.fail("it is remembered"))
            assert await engine.observe() == first
        await engine.enable_auto_restart("web-r1-1")
        assert [view.auto_restart for view in await engine.observe()] == [True]


async def test_threads_end_with_their_readers(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    await engine.start(docker_fixture.spec("web-r1-1", script=f"echo hello; {WAITS}"))
    for _ in range(3):
        async with aclosing(engine.events()) as events, aclosing(engine.follow_logs("web-r1-1")) as lines:
            await anext(events)
            await anext(lines)
            assert threads("engine events") == 1 and threads("logs of web-r1-1") == 1
        await until(lambda: threads("engine events") + threads("logs of web-r1-1") == 0)


async def test_process_without_a_sigterm_handler_is_stopped_by_sigterm_with_init(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    await engine.start(docker_fixture.spec("web-r1-1", entrypoint=["sleep", "1000"], init=True))
    grace = 30
    async with asyncio.timeout(grace / 2):
        stopped = await engine.stop("web-r1-1", grace)
    assert stopped is not None and stopped.exit_code == 128 + signal.SIGTERM


async def test_process_without_a_sigterm_handler_is_killed_without_init(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    await engine.start(docker_fixture.spec("web-r1-1", entrypoint=["sleep", "1000"]))
    stopped = await engine.stop("web-r1-1", 1)
    assert stopped is not None and stopped.exit_code == 128 + signal.SIGKILL


async def test_cancelled_stop_leaves_the_engine_usable(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    await engine.start(docker_fixture.spec("web-r1-1", script="trap '' TERM; while :; do sleep 1 & wait $!; done"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await engine.stop("web-r1-1", 2)
    stopped = await engine.stop("web-r1-1", 0)
    assert stopped is not None and stopped.exit_code == 137


async def test_stop_and_remove_of_a_removed_container_succeed(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    started = await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    docker_fixture.client.remove_container(started.container_id, v=True, force=True)
    assert await engine.observe() == []
    assert await engine.stop("web-r1-1", 1) is None
    await engine.remove("web-r1-1")


@pytest.fixture
def built(docker_fixture: DockerFixture) -> Iterator[list[str]]:
    """Build images with this Sluice's labels and return their tags; one image also has another name."""
    tags = [f"{docker_fixture.name}/web:{number}" for number in (1, 2, 3, 4)]
    for tag in tags:
        build(docker_fixture.client, f"FROM {IMAGE}\nLABEL {NAME}={docker_fixture.name} {BUILT}={tag}\nENV TAG={tag}\n", tag)
    build(docker_fixture.client, f"FROM {tags[0]}\nENV MINE=1\n", f"{docker_fixture.name}/child:1")
    docker_fixture.client.tag(tags[2], f"{docker_fixture.name}/web", "precious")
    yield tags
    for image in docker_fixture.client.images(filters={"label": f"{NAME}={docker_fixture.name}"}):
        for tag in image["RepoTags"] or []:
            with suppress(APIError):
                docker_fixture.client.remove_image(tag, force=True)


async def test_prune_removes_only_unused_images_that_this_sluice_built(
    engine: DockerEngine, docker_fixture: DockerFixture, built: list[str]
) -> None:
    used = docker_fixture.spec("web-r1-1", image_id=docker_fixture.client.inspect_image(built[3])["Id"], script=WAITS)
    await engine.start(used)
    assert await engine.prune(frozenset({built[1]})) == (built[0],)
    for tag in (*built[1:], f"{docker_fixture.name}/web:precious", f"{docker_fixture.name}/child:1", IMAGE):
        assert docker_fixture.client.inspect_image(tag)
    await engine.stop("web-r1-1", 5)
    await engine.remove("web-r1-1")
    assert await engine.prune(frozenset()) == (built[1], built[3])


async def test_concurrent_starts_of_one_instance_create_one_container(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    spec = docker_fixture.spec("web-r1-1", script=WAITS)
    views = await asyncio.gather(*(engine.start(replace(spec)) for _ in range(4)), return_exceptions=True)
    assert {view.container_id for view in views if not isinstance(view, BaseException)} == {
        docker_fixture.inspect("web-r1-1")["Id"]
    }
    assert [view.state for view in await engine.observe()] == ["running"]
