"""Blocking streams of the engine as async iterators.

Each stream has its own thread, which ends when the reader leaves.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import docker
from docker.errors import NotFound

from services.engine.docker.client import post

T = TypeVar("T")
_MAX_READ_AHEAD = 1000
"""Maximum number of items that a thread reads ahead, so a flood of log lines does not fill the memory."""


class Closeable(Protocol):
    def close(self) -> None: ...


class StreamCancel:
    """Cancellation of a stream: signals its thread, which may be blocked in a read, to end."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._stream: Closeable | None = None

    def set_stream(self, stream: Closeable) -> None:
        """Set the stream that a cancellation closes."""
        with self._lock:
            self._stream = stream
            if self._event.is_set():
                _close(stream)

    def cancel(self) -> None:
        with self._lock:
            self._event.set()
            if self._stream is not None:
                _close(self._stream)

    def wait(self, seconds: float) -> bool:
        """Wait for up to `seconds` and return True if the reader has left."""
        return self._event.wait(seconds)

    @property
    def is_set(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True)
class _End:
    error: BaseException | None


async def iterate_in_thread(source: Callable[[StreamCancel], Generator[T]], thread: str) -> AsyncGenerator[T]:
    """Iterate over the blocking generator `source` on a new thread named `thread`."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | _End] = asyncio.Queue()
    capacity = threading.Semaphore(_MAX_READ_AHEAD)
    stop = StreamCancel()

    def run() -> None:
        error: BaseException | None = None
        try:
            with closing(source(stop)) as items:
                for item in items:
                    capacity.acquire()
                    if stop.is_set:
                        break
                    post(loop, queue.put_nowait, item)
        except BaseException as caught:
            error = caught
        post(loop, queue.put_nowait, _End(error))

    threading.Thread(target=run, name=thread, daemon=True).start()
    try:
        while not isinstance(item := await queue.get(), _End):
            capacity.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.cancel()
        capacity.release()


def _close(stream: Closeable) -> None:
    """Close a stream. The SDK's own close fails on a stream that has just ended by itself."""
    with suppress(AttributeError, OSError):
        stream.close()


def running_start(client: docker.APIClient, container_id: str) -> str | None:
    """Return the start time of the container if it runs, otherwise None."""
    try:
        state = client.inspect_container(container_id)["State"]
    except NotFound:
        return None
    return str(state["StartedAt"]) if state["Running"] and not state.get("Restarting") else None
