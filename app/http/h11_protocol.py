"""HTTP/1.1 protocol that closes a connection whose request head does not arrive in time.

Slow and idle clients then occupy no connections.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_SECONDS = 10.0
"""Seconds within which a whole request head must arrive, as at the gateway.

The time starts with the connection or with the end of the last response. Uvicorn alone waits without limit for a head
that is incomplete or was never begun.
"""


class HeadTimeoutProtocol(H11Protocol):
    """Uvicorn's protocol for one connection, with a timeout for each request head."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._cancel_timer()
        if not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._close_without_head)

    def _cancel_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_without_head(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
