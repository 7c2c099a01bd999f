"""HTTP/1.1 protocol that closes a connection whose request head does not arrive in time.

Slow and idle clients then occupy no connections.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_WITHIN = 10.0
"""Seconds within which a whole request head must arrive, as at the gateway.

The time starts with the connection or with the end of the last response. Uvicorn alone waits without limit for a head
that is incomplete or was never begun.
"""


class HeadTimeoutProtocol(H11Protocol):
    """Uvicorn's protocol for one connection, with a timeout for each request head."""

    _until_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._expect_nothing()
        if not self.transport.is_closing():
            self._until_head = self.loop.call_later(HEAD_WITHIN, self._has_head)

    def _expect_nothing(self) -> None:
        if self._until_head is not None:
            self._until_head.cancel()
            self._until_head = None

    def _has_head(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
