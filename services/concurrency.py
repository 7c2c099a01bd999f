"""A writer-preferring read/write lock, and a semaphore whose permits expire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
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


class Gate:
    """`shared` for changes that a worker takes; `alone` for what replaces the worker. Who wants it alone goes first."""

    def __init__(self) -> None:
        self._sharing = 0
        self._alone = False
        self._asking = 0
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        await self._until(lambda: not self._alone and not self._asking)
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            self._wake()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        self._asking += 1
        try:
            await self._until(lambda: not self._alone and not self._sharing)
            self._alone = True
        finally:
            self._asking -= 1
            self._wake()
        try:
            yield
        finally:
            self._alone = False
            self._wake()

    async def _until(self, free: Callable[[], bool]) -> None:
        while not free():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
