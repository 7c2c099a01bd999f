"""Sluice retains the gateway's listeners: while the gateway restarts, connections wait.

None is refused, and a port that is not used any more is not kept open.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bench.gateway_dies import was_in_flight
from services.gateway.haproxy import HaproxyRouter
from services.gateway.lifecycle import listener_retention
from services.gateway.runtime import listener_transfer
from services.gateway.runtime.takeover import ADMIN
from services.loadtest.http1_client import ConnectionBroken
from services.loadtest.load_generator import Workload
from tests.gateway.test_load import answered, load
from tests.support.gateway_fixture import BRIDGE, INTERNAL, PUBLIC, GatewayFixture, real_gateway, service, until

pytestmark = pytest.mark.anyio
ANY = "0.0.0.0"
AS_BEFORE = 'exec haproxy -W -db -S /run/gateway/master.sock,mode,600 -f /run/gateway/haproxy.cfg "$@"'
"""The last command of start.sh in images that cannot take over retained listeners."""


@pytest.mark.parametrize("number", [0, 1, 252, 253, 300])
def test_listeners_are_received_as_sent_and_all_are_closed_again(tmp_path: Path, number: int) -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    gc.collect()
    before = open_files()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / ADMIN))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as connection:
                listener_transfer.send_listeners(connection, sockets)

        giving = threading.Thread(target=answer)
        giving.start()
        fetched = listener_transfer.receive_listeners(tmp_path / ADMIN)
        giving.join()
    assert [each.getsockname() for each in fetched] == [each.getsockname() for each in sockets]
    assert not any(each.get_inheritable() for each in fetched)
    for each in fetched:
        each.close()
    assert open_files() == before
    for each in sockets:
        each.close()


async def kill_its_master(gateway_fixture: GatewayFixture) -> None:
    os.kill(int(gateway_fixture.docker("inspect", "--format", "{{.State.Pid}}", gateway_fixture.name)), signal.SIGKILL)


async def kill_its_worker(gateway_fixture: GatewayFixture) -> None:
    os.kill((await pids(gateway_fixture))[-1], signal.SIGKILL)


@pytest.mark.docker
@pytest.mark.parametrize("harm", [kill_its_master, kill_its_worker])
async def test_killed_gateway_loses_only_requests_in_flight_and_refuses_none(
    gateway_fixture: GatewayFixture, harm: Callable[[GatewayFixture], Awaitable[None]]
) -> None:
    await gateway_fixture.serve(service(), 2)
    await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL)}))
    killed_at: list[float] = []
    async with load(gateway_fixture, Workload(rate=150, slow_seconds=0.3)) as running:
        started_at = time.monotonic()
        for _ in range(3):
            running.mark("serving")
            await answered(running, 100)
            was = await pids(gateway_fixture)
            running.mark("dying")
            killed_at.append(time.monotonic() - started_at)
            await harm(gateway_fixture)
            await until(lambda was=was: gone(was))  # type: ignore[misc]
            running.mark("away")
            await until(lambda was=was: another(gateway_fixture, was))  # type: ignore[misc]
            await answered(running, 50)
    counted = running.request_log
    # On a busy machine, a request that waited for the new gateway may still be in flight when this one is killed.
    in_flight = [
        entry
        for entry in counted.failures
        if was_in_flight(entry) or any(entry.at < at < entry.at + entry.latency for at in killed_at)
    ]
    assert in_flight == counted.failures, counted.explain()
    assert not [entry for entry in counted.failures if "Connect call failed" in entry.error], counted.explain()
    assert not counted.twice


@pytest.mark.docker
async def test_unpublished_port_refuses_connections_at_once(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service(), 1)
    await gateway_fixture.gateway.publish(service("other", 1))
    await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL), (BRIDGE, INTERNAL + 1)}))
    before = open_files()
    for _ in range(3):
        await gateway_fixture.gateway.unpublish("other")
        await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL)}))
        await until(lambda: refused(BRIDGE, INTERNAL + 1), within=1)
        # The port is free: Sluice does not mistake its own retained listener for a conflict.
        await gateway_fixture.gateway.publish(service("other", 1))
        await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL), (BRIDGE, INTERNAL + 1)}))
    await until(lambda: true(open_files() <= before))


@pytest.mark.docker
async def test_listeners_of_a_gateway_that_stays_down_are_released(
    gateway_fixture: GatewayFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_retention, "RELEASE_AFTER", 2.0)
    await gateway_fixture.serve(service(), 1)
    await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL)}))
    gateway_fixture.docker(
        "kill", gateway_fixture.name
    )  # The engine does not restart a container that was killed by command.
    with capture_logs() as said, pytest.raises((ConnectionBroken, OSError)):
        await gateway_fixture.ask("/web")  # Waits until the listener is closed.
    assert "gateway_sockets_let_go" in [each["event"] for each in said]
    assert await refused("127.0.0.1", PUBLIC)
    gateway_fixture.docker("start", gateway_fixture.name)
    await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL)}))
    assert (await gateway_fixture.ask("/web")).status == 200


@pytest.mark.docker
async def test_listeners_of_a_gateway_without_takeover_are_not_retained(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[bool] = []
    able = listener_transfer.takes_over_listeners

    def listen(master: Path) -> bool:
        reported.append(able(master))
        return reported[-1]

    monkeypatch.setattr(listener_retention, "takes_over_listeners", listen)
    async with real_gateway(start=AS_BEFORE) as gateway_fixture:
        await gateway_fixture.serve(service(), 1)
        await until(lambda: true(len(reported) > 2))
        assert not any(reported)
        assert gateway_fixture.gateway.retained_binds == set()
        was = await pids(gateway_fixture)
        await kill_its_master(gateway_fixture)
        await until(lambda: another(gateway_fixture, was))
        assert (await gateway_fixture.ask("/web")).status == 200
        assert gateway_fixture.docker("inspect", "--format", "{{.RestartCount}}", gateway_fixture.name).strip() == "1"


@pytest.mark.docker
async def test_gateway_listens_by_itself_after_sluice_was_stopped_or_killed(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service(), 1)
    await until(lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL)}))
    before = await pids(gateway_fixture)
    await gateway_fixture.gateway.close()
    assert (await gateway_fixture.ask("/web")).status == 200
    assert await pids(gateway_fixture) == before
    assert not (gateway_fixture.directory / listener_retention.RETENTION_SOCKET).exists()
    with socket.socket(socket.AF_UNIX) as left:  # A killed Sluice leaves its socket file behind.
        left.bind(str(gateway_fixture.directory / listener_retention.RETENTION_SOCKET))
    await kill_its_master(gateway_fixture)
    await until(lambda: another(gateway_fixture, before))
    assert (await gateway_fixture.ask("/web")).status == 200
    assert gateway_fixture.docker("inspect", "--format", "{{.RestartCount}}", gateway_fixture.name).strip() == "1"
    again = HaproxyRouter(gateway_fixture.directory)
    await again.configure(gateway_fixture.settings)
    await again.restore([service()], [instance.endpoint() for instance in gateway_fixture.instances])
    await until(lambda: true(again.retained_binds == {(ANY, PUBLIC), (BRIDGE, INTERNAL)}))
    await again.close()


@pytest.mark.docker
async def test_gateway_with_hundreds_of_ports_takes_over_all_listeners(gateway_fixture: GatewayFixture) -> None:
    numbers = range(200, 500)
    await asyncio.gather(*(gateway_fixture.gateway.publish(service(f"s{n}", n)) for n in numbers))
    [instance] = await gateway_fixture.serve(service(), 1)
    await until(
        lambda: keeps(gateway_fixture, {(ANY, PUBLIC), (BRIDGE, INTERNAL), *((BRIDGE, INTERNAL + n) for n in numbers)})
    )
    was = await pids(gateway_fixture)
    await kill_its_master(gateway_fixture)
    await until(lambda: gone(was))
    asked = (
        gateway_fixture.ask("/", at=BRIDGE, port=INTERNAL),
        *(gateway_fixture.ask("/", at=BRIDGE, port=INTERNAL + n) for n in numbers),
    )
    answers = await asyncio.gather(*asked)
    assert answers[0].headers["x-instance"] == instance.id
    assert {answer.status for answer in answers[1:]} == {503}, "without a backend they answer 503"
    assert gateway_fixture.docker("inspect", "--format", "{{.RestartCount}}", gateway_fixture.name).strip() == "1"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def true(value: bool) -> bool:
    return value


async def keeps(gateway_fixture: GatewayFixture, binds: set[listener_transfer.Bind]) -> bool:
    return gateway_fixture.gateway.retained_binds == binds


async def refused(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def pids(gateway_fixture: GatewayFixture) -> list[int]:
    """Return the ids of the gateway's processes, the master's first; none while it does not run."""
    try:
        reported = await asyncio.to_thread(gateway_fixture.docker, "top", gateway_fixture.name, "-o", "pid")
    except subprocess.CalledProcessError:
        return []
    return sorted(int(word) for word in reported.split() if word.isdigit())


async def gone(pids: list[int]) -> bool:
    return not any(str(pid) in os.listdir("/proc") for pid in pids)


async def another(gateway_fixture: GatewayFixture, before: list[int]) -> bool:
    """Return whether all processes in `before` have ended and a new gateway answers."""
    return await gone(before) and await gateway_fixture.gateway.status() is not None
