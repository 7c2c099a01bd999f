"""Pool of Docker SDK clients, each used by one thread at a time, and translation of their errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import anyio.to_thread
import docker
from anyio import CapacityLimiter
from docker.errors import APIError, DockerException, StreamParseError
from docker.transport import UnixHTTPAdapter
from docker.utils import kwargs_from_env
from urllib3.exceptions import HTTPError

from services.engine.docker.codec import parse_error
from services.engine.port import EngineError

T = TypeVar("T")
CALL_TIMEOUT = 60
"""Seconds that a call to the engine may take; a stop may take its grace period in addition."""
FAILURES = (DockerException, HTTPError, OSError, StreamParseError)
"""Exceptions of the SDK if the engine refuses, cannot be reached, or breaks off.

Those of the library `requests` are OSErrors.
"""
_SOCKET_SCHEME = "http+docker://"


class ClientPool:
    """Pool of clients that threads borrow.

    The SDK's clients are not thread-safe, and each one asks the engine for its version when it is created.

    Short calls share 16 threads of their own, so a slow engine cannot starve the API's threads. A long call (a stop's
    grace period, a pull, a stream) gets its own thread, which delays neither short calls nor the end of the process.
    """

    def __init__(self, base_url: str | None = None, *, threads: int = 16) -> None:
        self._base_url = base_url
        self._idle: list[docker.APIClient] = []
        self._max_idle = threads
        self._closed = False
        self._limiter = CapacityLimiter(threads)

    async def call(self, work: Callable[[docker.APIClient], T]) -> T:
        """Run `work` with a client on a thread. Raises EngineError for any failure of the SDK."""
        return await anyio.to_thread.run_sync(self._run, work, limiter=self._limiter)

    async def call_long(self, work: Callable[[docker.APIClient], T]) -> T:
        """Run `work` like `call`, for calls that take long.

        If the caller is cancelled, the thread finishes on its own.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            try:
                result, error = self._run(work), None
            except BaseException as caught:
                result, error = None, caught
            post(loop, settle, result, error)

        threading.Thread(target=run, name="engine call", daemon=True).start()
        return await future

    def new(self) -> docker.APIClient:
        """Return a new client, which the caller closes."""
        options = {"base_url": self._base_url} if self._base_url else kwargs_from_env()
        client = docker.APIClient(version="auto", timeout=CALL_TIMEOUT, **options)
        _use_single_pool(client)
        return client

    def close(self) -> None:
        self._closed = True
        self._forget_idle()

    def _run(self, work: Callable[[docker.APIClient], T]) -> T:
        with translate_errors(), self._borrow() as client:
            return work(client)

    @contextmanager
    def _borrow(self) -> Iterator[docker.APIClient]:
        """Lend a client to this thread alone.

        A client that failed to reach the engine is not used again, nor are the idle ones: their connections are dead
        too, and after an engine upgrade the version must be negotiated again.
        """
        try:
            client = self._idle.pop()
        except IndexError:
            client = self.new()
        try:
            yield client
        except (APIError, EngineError):
            self._return(client)
            raise
        except BaseException:
            client.close()
            self._forget_idle()
            raise
        self._return(client)

    def _return(self, client: docker.APIClient) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            client.close()
        else:
            self._idle.append(client)

    def _forget_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def _use_single_pool(client: docker.APIClient) -> None:
    """Replace the client's connection pools for the UNIX socket by a single one.

    The SDK keeps up to 25 pools, one for each URL, and each container has its own URL (docker/transport/unixconn.py):
    hundreds of open files in the end. The SDK ignores its own `num_pools` for UNIX sockets.
    """
    existing = client.adapters.get(_SOCKET_SCHEME)
    if isinstance(existing, UnixHTTPAdapter):
        client.mount(
            _SOCKET_SCHEME, UnixHTTPAdapter(f"http+unix://{existing.socket_path}", CALL_TIMEOUT, pool_connections=1)
        )
        existing.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate any failure of the SDK in the block to EngineError."""
    try:
        yield
    except FAILURES as error:
        raise engine_error(error) from error


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    """Schedule a callback in the loop's thread. Does nothing if the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        return


def engine_error(error: Exception, *, reason: str | None = None) -> EngineError:
    """Convert an SDK exception to an EngineError with the engine's text.

    The error is transient if the engine did not answer.
    """
    if not isinstance(error, APIError):
        return EngineError(f"The engine does not answer: {error}", reason="engine_error", transient=True)
    message, error_reason = parse_error(str(error.explanation or error))
    return EngineError(message, reason=reason or error_reason)
