"""Health checks are quiet: they name themselves, and end without an error in the application's log."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.clock import SystemClock
from services.probes import Prober, ProbeTarget
from services.routing.port import Endpoint
from services.spec import Healthcheck
from tests.support.gateway_fixture import NET, PORT, GatewayFixture, service

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
CHECKS = 20
BELOW_500 = Healthcheck(interval=0.1).model_copy(update={"any_below_500": True})
APPLICATION = """
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"x" * int(sys.argv[3])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def finish(self):
        super().finish()
        agents = getattr(self, "headers", None) and self.headers.get_all("User-Agent")
        os.write(1, f"user agents: {agents}\\n".encode())

    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    def handle_error(self, request, address):
        super().handle_error(request, address)
        os.write(1, b"error\\n")

server = Server((sys.argv[1], int(sys.argv[2])), Handler)
os.write(1, b"listens\\n")
server.serve_forever()
"""
"""An application on Python's http.server: its log has a line for each connection, and the errors that it reports."""


@asynccontextmanager
async def application(address: str, body: int = 100) -> AsyncIterator[asyncio.StreamReader]:
    """Run the application, and yield its log."""
    words = (sys.executable, "-c", APPLICATION, address, str(PORT), str(body))
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listens\n"
    try:
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def lines_of(log: asyncio.StreamReader) -> list[str]:
    async with asyncio.timeout(30):
        return [(await log.readline()).decode().strip() for _ in range(CHECKS)]


@pytest.mark.parametrize(
    ("healthcheck", "body", "agent"),
    [
        (BELOW_500, 100, "['sluice-healthcheck']"),
        (BELOW_500, 60_000, "['sluice-healthcheck']"),
        (Healthcheck(path="/", interval=0.1), 100, "['sluice-healthcheck']"),
        (Healthcheck(path="/", interval=0.1, headers={"user-agent": "probe/1"}), 100, "['probe/1']"),
        (Healthcheck(tcp=True, interval=0.1), 100, "None"),
    ],
    ids=["default", "default, large page", "path", "own User-Agent", "tcp"],
)
async def test_checks_leave_no_error_in_an_application_log(
    gateway_fixture: GatewayFixture, healthcheck: Healthcheck, body: int, agent: str
) -> None:
    endpoint = Endpoint("web-r1-1", "web", f"{NET}.9", PORT, "c1@t1", healthcheck)
    async with application(endpoint.address, body) as log:
        await gateway_fixture.gateway.publish(service(healthcheck=healthcheck))
        await gateway_fixture.gateway.admit(endpoint)
        assert await lines_of(log) == [f"user agents: {agent}"] * CHECKS


@pytest.mark.parametrize(
    ("healthcheck", "body", "agent"),
    [
        (BELOW_500, 60_000, "['sluice-healthcheck']"),
        (Healthcheck(path="/", headers={"user-agent": "probe/1"}), 100, "['probe/1']"),
        (Healthcheck(tcp=True), 100, "None"),
    ],
    ids=["default, large page", "own User-Agent", "tcp"],
)
async def test_probes_leave_no_error_in_an_application_log(healthcheck: Healthcheck, body: int, agent: str) -> None:
    prober = Prober(SystemClock(), lambda _: None)
    target = ProbeTarget("web-r1-1", "1", f"{NET}.9", PORT, healthcheck)
    async with application(target.address, body) as log:
        for _ in range(CHECKS):
            assert await prober.ask_all([target]) == {"web-r1-1"}
        assert await lines_of(log) == [f"user agents: {agent}"] * CHECKS
    await prober.stop()
