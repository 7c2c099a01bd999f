"""The application with fake engine and gateway, served on its own port, and `sluice` run as its admin."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from app.cli import cli
from app.main import ADMIN_FILE, create_app
from app.server import server_of
from app.settings import Settings
from services.clock import SystemClock
from tests.support.app_fixture import FakeGatewayRouter, FakeInfrastructure
from tests.support.fakes.containers import Behaviour
from tests.support.fakes.engine import FakeEngine

DEPLOY = ("deploy", "web", "--image", "web:1", "--replicas", "2", "--set", "healthcheck.disable=true")


class CliFixture:
    """A served application and its command line.

    `sluice` runs a command as the admin; `environment` is what a user or a job sets to reach the server.
    """

    def __init__(self, data: Path) -> None:
        clock = SystemClock()
        self.engine = FakeEngine(clock)
        for tag in ("1", "2", "broken"):
            self.engine.add_image(f"web:{tag}")
        self.engine.behave("web:broken", Behaviour(exits_at_once=1, log="KeyError"))
        self.infrastructure = FakeInfrastructure()
        self.settings = Settings(data=data, default_route="/{name}", eureka_port=0)
        self.app = create_app(
            self.settings, engine=self.engine, router=FakeGatewayRouter(clock), infrastructure=self.infrastructure
        )
        self.url = ""

    @property
    def environment(self) -> dict[str, str]:
        admin = (self.settings.data / ADMIN_FILE).read_text().strip()
        return {"SLUICE_URL": self.url, "SLUICE_TOKEN": admin, "SLUICE_PATIENCE": "10"}

    def sluice(self, *arguments: str, token: str | None = None, stdin: str | None = None) -> Result:
        environment = {**self.environment, **({"SLUICE_TOKEN": token} if token else {})}
        return CliRunner().invoke(cli, arguments, input=stdin, env=environment, catch_exceptions=False)


@contextmanager
def living(fixture: CliFixture) -> Iterator[CliFixture]:
    """Serve from a thread until the block is left."""
    server = server_of(fixture.app, fixture.settings)
    with capture_logs(), socket.socket() as listening:  # without it structlog would write into the CLI's output
        listening.bind(("127.0.0.1", 0))
        fixture.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until_ready(fixture)
            yield fixture
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def until_ready(fixture: CliFixture) -> None:
    """Wait until the CLI reaches the server; the CLI itself does not retry a server that never answered."""
    for _ in range(200):
        if (fixture.settings.data / ADMIN_FILE).exists() and fixture.sluice("status", "--quiet").exit_code == 0:
            return
        threading.Event().wait(0.05)
    raise AssertionError(fixture.sluice("status").output)
