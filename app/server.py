"""The server's process: one port, a graceful stop that no open stream holds up, an exit code that says how it ended."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI

from app import log_config
from app.http.h11_protocol import HeadTimeoutProtocol
from app.http.sockets import bind_tcp
from app.main import create_app
from app.settings import Settings
from app.version import VERSION
from services.rollouts.reconciler.crash_points import CrashPoints
from services.store.errors import StoreError
from services.store.open import open_store

log = structlog.get_logger(__name__)
REFUSED, CRASHED = 1, 70
CRASH_AT = "SLUICE_CRASH_AT"
"""For tests alone: where to die (docs/why-crash-points.md)."""
SWITCH = 0.0005
"""Seconds after which a thread that computes lets another go on. Python's own 5 ms are what a reader would wait at each of
its many small steps in SQLite while the loop has much to do (measured with bench.concurrent_deploys: p99 halves)."""
GARBAGE = 10_000
"""Objects more than there were after which Python looks for garbage in cycles. At its own 700, and with all modules looked
through again now and then, that was an eighth of what a read costs, and while it looks nobody is answered."""
GRACE = 10
"""Seconds that requests in hand have to end after the stop began."""


class Server(uvicorn.Server):
    """Tells streams and held answers to end before it waits for connections; uvicorn alone would wait for them for ever."""

    exit_code = 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: FastAPI = self.config.app  # type: ignore[assignment]
        if hasattr(app.state, "sluice"):
            app.state.sluice.stopping.set()
        await super().shutdown(sockets)

    def crash(self) -> None:
        """A task that cannot be done without keeps crashing: stop, with the exit code that says so."""
        self.exit_code = CRASHED
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the process's exit code: 0, 1 when it would not start, 70 after crashes."""
    log_config.configure(settings)
    try:
        crash_points = CrashPoints(os.environ.get(CRASH_AT, ""))
        listening = _listen(settings)
        store = open_store(settings.data)
    except (StoreError, OSError, ValueError) as error:
        return _refuse(str(error))
    holder: list[Server] = []
    app = create_app(settings, store=store, on_fatal=lambda: holder[0].crash(), crash_points=crash_points)
    server = server_of(app, settings)
    holder.append(server)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is an open file
    log.info(
        "serving", version=VERSION, url=f"http://{settings.host}:{settings.port}", data=str(settings.data), run=store.run
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # uvicorn raises them once more when it has stopped: that is no failure
    server.run(sockets=[listening])
    return server.exit_code if server.started else REFUSED


def server_of(app: FastAPI, settings: Settings) -> Server:
    """A server that is not started yet; this process's threads take turns, and its garbage is collected, as it needs."""
    sys.setswitchinterval(SWITCH)
    gc.set_threshold(GARBAGE)
    gc.freeze()  # what is imported by now stays
    trusted = list(settings.trusted_proxies)
    return Server(
        uvicorn.Config(
            app,
            http=HeadTimeoutProtocol,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted),
            forwarded_allow_ips=trusted,
            timeout_graceful_shutdown=GRACE,
        )
    )


def _listen(settings: Settings) -> socket.socket:
    try:
        return bind_tcp(settings.host, settings.port)
    except OSError as error:
        why = f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}"
        raise StoreError(f"{why}; set SLUICE_PORT (or SLUICE_HOST) to another") from error


def _refuse(why: str) -> int:
    sys.stderr.write(f"sluice: {why}\n")
    return REFUSED
