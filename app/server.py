"""The server process: one port, a graceful stop that open streams do not delay, and exit codes."""

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
EXIT_START_FAILED, EXIT_CRASHED = 1, 70
CRASH_AT = "SLUICE_CRASH_AT"
"""Environment variable with the points to crash at, for tests only (docs/why-crash-points.md)."""
THREAD_SWITCH_SECONDS = 0.0005
"""Interval after which the interpreter switches threads, in seconds.

With Python's default of 5 ms, a reader would wait that long at each of its many small SQLite steps while the event loop
is busy. Measured with `bench.concurrent_deploys`: p99 halves.
"""
GC_THRESHOLD = 10_000
"""Allocated objects above which the cyclic garbage collector runs its generation 0.

Python's default of 700, and full collections of all modules now and then, cost an eighth of a read, and no request is
answered during a collection.
"""
STOP_GRACE_SECONDS = 10
"""Seconds that requests in progress have to end after the stop began."""


class Server(uvicorn.Server):
    """A uvicorn server that ends streams and waiting responses before it waits for connections.

    Uvicorn alone would wait for them without limit.
    """

    exit_code = 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: FastAPI = self.config.app  # type: ignore[assignment]
        if hasattr(app.state, "sluice"):
            app.state.sluice.stopping.set()
        await super().shutdown(sockets)

    def crash(self) -> None:
        """Stop the server with exit code 70, because an essential task keeps crashing."""
        self.exit_code = EXIT_CRASHED
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, and return the exit code: 0, 1 if the start failed, 70 after crashes."""
    log_config.configure(settings)
    try:
        crash_points = CrashPoints(os.environ.get(CRASH_AT, ""))
        listener = _listen(settings)
        store = open_store(settings.data)
    except (StoreError, OSError, ValueError) as error:
        return _refuse(str(error))
    created: list[Server] = []
    app = create_app(settings, store=store, on_fatal=lambda: created[0].crash(), crash_points=crash_points)
    server = server_of(app, settings)
    created.append(server)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # each connection is an open file
    log.info(
        "serving", version=VERSION, url=f"http://{settings.host}:{settings.port}", data=str(settings.data), run=store.run
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # uvicorn raises the signals again after it stopped; that is no failure
    server.run(sockets=[listener])
    return server.exit_code if server.started else EXIT_START_FAILED


def server_of(app: FastAPI, settings: Settings) -> Server:
    """Return a server that is not started; tune this process's thread switching and garbage collector."""
    sys.setswitchinterval(THREAD_SWITCH_SECONDS)
    gc.set_threshold(GC_THRESHOLD)
    gc.freeze()  # collections skip the objects of the modules imported so far
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
            timeout_graceful_shutdown=STOP_GRACE_SECONDS,
        )
    )


def _listen(settings: Settings) -> socket.socket:
    try:
        return bind_tcp(settings.host, settings.port)
    except OSError as error:
        why = f"{settings.host}:{settings.port} cannot be bound: {error.strerror}"
        raise StoreError(f"{why}; choose another SLUICE_PORT or SLUICE_HOST") from error


def _refuse(why: str) -> int:
    sys.stderr.write(f"sluice: {why}\n")
    return EXIT_START_FAILED
