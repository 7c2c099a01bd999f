"""Turns at something that few may do at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """So many at a time; whoever takes longer than `lent` seconds goes on, and the next has its turn nevertheless: two whose
    engine does not answer hold up nobody else."""

    def __init__(self, at_once: int, lent: float) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._lent = lent

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        given_back = loop.call_later(self._lent, self._slots.release)
        try:
            yield
        finally:
            if given_back.when() > loop.time():
                given_back.cancel()
                self._slots.release()
