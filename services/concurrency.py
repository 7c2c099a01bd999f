"""A writer-preferring read/write lock, locks by key, and a semaphore whose permits expire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class ExpiringSemaphore:
    """A semaphore whose permits expire, so that a hung engine call cannot block the other callers.

    At most `permits` holders run at a time. If a holder takes longer than `lease` seconds, the holder continues, but its
    permit is released for the next caller.
    """

    def __init__(self, permits: int, lease: float) -> None:
        self._slots = asyncio.Semaphore(permits)
        self._lease = lease

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(self._lease, self._slots.release)
        try:
            yield
        finally:
            if expiry.when() > loop.time():
                expiry.cancel()
                self._slots.release()


class KeyedLock:
    """Locks by key. A lock exists only while it is held or awaited."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield


class ReadWriteLock:
    """A writer-preferring read/write lock around changes of the gateway.

    `shared` is for changes that the running gateway worker accepts, `exclusive` for changes that replace the worker. A
    waiting `exclusive` caller goes before new `shared` callers.
    """

    def __init__(self) -> None:
        self._readers = 0
        self._writing = False
        self._waiting_writers = 0
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        await self._wait_until(lambda: not self._writing and not self._waiting_writers)
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._wake_all()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        self._waiting_writers += 1
        try:
            await self._wait_until(lambda: not self._writing and not self._readers)
            self._writing = True
        finally:
            self._waiting_writers -= 1
            self._wake_all()
        try:
            yield
        finally:
            self._writing = False
            self._wake_all()

    async def _wait_until(self, free: Callable[[], bool]) -> None:
        while not free():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
