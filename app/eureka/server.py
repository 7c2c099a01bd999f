"""Server of the Eureka port, in the API's process, on its own addresses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence

import anyio
import structlog
import uvicorn

from app.eureka.asgi import EurekaApp
from app.http.h11_protocol import HeadTimeoutProtocol
from app.http.sockets import bind_tcp

log = structlog.get_logger(__name__)
LISTEN_RETRY_INTERVAL = 1.0
"""Seconds between two attempts to listen."""
BACKLOG = 2048
STOP_GRACE_SECONDS = 2
"""Seconds that responses in progress have when Sluice stops."""


class EurekaServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the API's server; `should_exit` ends it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: EurekaApp, addresses: Sequence[str], port: int) -> None:
    """Listen on all `addresses` until cancelled.

    An address that is missing or in use is tried again, and logged once.
    """
    listening = [await _listen(address, port) for address in addresses]
    # h11, because the faster parser loses the body of a POST that asks for an upgrade
    config = uvicorn.Config(
        app,
        lifespan="off",
        http=HeadTimeoutProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # clients are identified by their source address, which X-Forwarded-For would replace
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
    )
    server = EurekaServer(config)
    serving = asyncio.ensure_future(server.serve(sockets=listening))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await serving


async def _listen(address: str, port: int) -> socket.socket:
    reported = False
    while True:
        try:
            listener = bind_tcp(address, port)
            listener.listen(BACKLOG)
        except OSError as error:
            if not reported:
                cause = f"{error.strerror}; choose another SLUICE_EUREKA_PORT, or 0 for none"
                log.error("eureka_port", address=address, port=port, error=cause)
            reported = True
            await anyio.sleep(LISTEN_RETRY_INTERVAL)
        else:
            return listener
