"""A client's connection: closed when the head of a request does not come, so that slow and idle ones hold up nobody."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_WITHIN = 10.0
"""Seconds in which a request's head must have come as a whole, as at the gateway; from the connection's begin, or the last
answer's end. uvicorn alone waits for ever for one that has begun, or that never begins."""


class HeadTimeoutProtocol(H11Protocol):
    """One connection of uvicorn's."""

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
