"""Streams of the engine as async iterators: each on a thread of its own that ends when its reader leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from services.engine.docker.client import post

T = TypeVar("T")
_AHEAD = 1000
"""How many items a thread may be ahead of its reader: a flood of log lines must not fill the memory."""


class Closeable(Protocol):
    def close(self) -> None: ...


class StreamCancel:
    """How the reader of a stream tells the thread, which may be blocked in a read, that it has left."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._stream: Closeable | None = None

    def reading(self, stream: Closeable) -> None:
        """`stream` is what to close from now on."""
        with self._lock:
            self._stream = stream
            if self._event.is_set():
                _close(stream)

    def now(self) -> None:
        with self._lock:
            self._event.set()
            if self._stream is not None:
                _close(self._stream)

    def wait(self, seconds: float) -> bool:
        """Whether the reader left within so many seconds."""
        return self._event.wait(seconds)

    @property
    def is_set(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True)
class _End:
    error: BaseException | None


async def iterate_in_thread(source: Callable[[StreamCancel], Generator[T]], thread: str) -> AsyncGenerator[T]:
    """Iterate over `source`, which blocks, on a thread called `thread`."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | _End] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    stop = StreamCancel()

    def run() -> None:
        error: BaseException | None = None
        try:
            with closing(source(stop)) as items:
                for item in items:
                    room.acquire()
                    if stop.is_set:
                        break
                    post(loop, queue.put_nowait, item)
        except BaseException as caught:
            error = caught
        post(loop, queue.put_nowait, _End(error))

    threading.Thread(target=run, name=thread, daemon=True).start()
    try:
        while not isinstance(item := await queue.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.now()
        room.release()


def _close(stream: Closeable) -> None:
    """The SDK's own close fails on a stream that has just ended by itself."""
    with suppress(AttributeError, OSError):
        stream.close()
