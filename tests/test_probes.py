"""An instance is ready by its own answer, regardless of other content in its body."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.clock import SystemClock
from services.probes import MAX_ERROR, Prober, ProbeTarget
from services.spec import Healthcheck

pytestmark = pytest.mark.anyio
UP = Healthcheck(path="/actuator/health", expect_json={"status": "UP"}, timeout=5)
Answers = dict[str, tuple[int, bytes]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def instances(answers: Answers) -> AsyncIterator[Callable[[str], ProbeTarget]]:
    """Serve each address with its own answer to every request, on its own port."""
    ports: dict[str, int] = {}
    servers = []
    for address, (status, body) in answers.items():

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int = status, body: bytes = body
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
            await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(answer, address, 0))
        ports[address] = servers[-1].sockets[0].getsockname()[1]
    yield lambda address: ProbeTarget(address, "1", address, ports[address], UP)
    for server in servers:
        server.close()
        await server.wait_closed()


async def asked(answers: Answers) -> tuple[set[str], dict[str, str | None]]:
    """Probe all addresses; return the healthy ones, and the errors of the others."""
    prober = Prober(SystemClock(), lambda _: None)
    async with instances(answers) as target:
        healthy = await prober.ask_all([target(address) for address in answers])
    await prober.stop()
    results = {address: prober.last(address) for address in answers}
    return healthy, {address: result.error for address, result in results.items() if result is not None and not result.ok}


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


async def test_every_instance_is_probed_and_unhealthy_one_is_found() -> None:
    healthy, wrong = await asked(
        {
            "127.0.0.1": (200, document(status="UP")),
            "127.0.0.2": (503, document(status="DOWN")),
            "127.0.0.3": (200, document(status="UP")),
        }
    )
    assert healthy == {"127.0.0.1", "127.0.0.3"}
    assert wrong == {"127.0.0.2": "status is 'DOWN', not 'UP'"}


@pytest.mark.parametrize(
    "body",
    [
        document(status="UP", groups=["liveness", "readiness"]),
        document(components={"db": {"status": "UP"}}, status="UP"),
        b'{ "status" :\r\n "UP" }\n',
    ],
)
async def test_probe_ignores_groups_components_and_whitespace(body: bytes) -> None:
    assert (await asked({"127.0.0.1": (200, body)}))[0] == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, document(status="UP"), "answered 503"),
        (200, document(status="OUT_OF_SERVICE"), "status is 'OUT_OF_SERVICE', not 'UP'"),
        (200, document(components={"status": "UP"}), "status is None, not 'UP'"),
        (200, b'["UP"]', "response is not a JSON object"),
        (200, b"<html>UP</html>", "Expecting value"),
        (200, b"[" * 20_000, "nested too deeply"),
        (200, b" " * 70_000, "response is larger than 64 KiB"),
    ],
)
async def test_failed_probe_reports_response_as_cause(status: int, body: bytes, why: str) -> None:
    healthy, wrong = await asked({"127.0.0.1": (status, body)})
    assert healthy == set()
    assert why in str(wrong["127.0.0.1"])


@pytest.mark.parametrize("check", [Healthcheck(path="/healthz"), Healthcheck(tcp=True)])
async def test_port_without_listener_is_named(check: Healthcheck) -> None:
    prober = Prober(SystemClock(), lambda _: None)
    with socket.socket() as bound:  # bound, so that no other process gets the port, but not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        await prober.ask_all([ProbeTarget("web-r1-1", "1", "127.0.0.1", port, check)])
    await prober.stop()
    assert prober.last_errors(["web-r1-1", "web-r1-2"]) == {"web-r1-1": f"no connection to port {port}"}


async def test_long_probe_error_is_truncated() -> None:
    _, wrong = await asked({"127.0.0.1": (200, document(status="x" * 5000))})
    assert len(str(wrong["127.0.0.1"])) == MAX_ERROR


async def test_secret_in_probe_response_is_not_shown() -> None:
    spec = {"environment": {"DB_PASSWORD": "hunter2-hunter2"}}
    prober = Prober(SystemClock(), lambda _: None)
    async with instances({"127.0.0.1": (200, document(status="is hunter2-hunter2"))}) as target:
        await prober.ask_all([replace(target("127.0.0.1"), spec=spec)])
    await prober.stop()
    assert prober.last_errors(["127.0.0.1"]) == {"127.0.0.1": "status is 'is ***', not 'UP'"}


async def test_secret_in_invalid_probe_header_is_not_shown() -> None:
    headers = {"X-Token": "letmein99 "}
    prober = Prober(SystemClock(), lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        check, spec = Healthcheck(path="/", headers=headers), {"healthcheck": {"headers": headers}}
        await prober.ask_all([ProbeTarget("web-r1-1", "1", "127.0.0.1", mute.getsockname()[1], check, spec)])
    await prober.stop()
    assert prober.last_errors(["web-r1-1"]) == {"web-r1-1": "Illegal header value b'***'"}


@pytest.mark.parametrize("check", [Healthcheck(path="/healthz", timeout=60), Healthcheck(tcp=True, timeout=60)])
@pytest.mark.parametrize("forgotten", [True, False])
async def test_stopped_prober_has_closed_connections_even_to_removed_instances(check: Healthcheck, forgotten: bool) -> None:
    prober = Prober(SystemClock(), lambda _: None)
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel accepts, but nothing answers
        port = mute.getsockname()[1]
        prober.set_targets(["web-r1-1"], [ProbeTarget("web-r1-1", "1", "127.0.0.1", port, check)])
        mute.setblocking(False)
        theirs, _ = await asyncio.get_running_loop().sock_accept(mute)
        with theirs:
            if forgotten:
                prober.remove("web-r1-1")
            await prober.stop()
            assert asyncio.all_tasks() == before
            theirs.settimeout(5)
            while theirs.recv(4096):
                """Receive the request until the prober closes the connection."""
