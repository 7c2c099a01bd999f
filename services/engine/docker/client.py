"""The Docker SDK's clients: one to a thread at a time, and their exceptions as EngineError."""

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

from services.engine.port import EngineError

T = TypeVar("T")
CALL_TIMEOUT = 60
"""Seconds that the engine may take over a call; a stop may take its grace besides."""
FAILURES = (DockerException, HTTPError, OSError, StreamParseError)
"""What the SDK raises when the engine refuses, cannot be reached, or breaks off (those of requests are OSErrors)."""
_BY_SOCKET = "http+docker://"
_PORT_TAKEN = ("port is already allocated", "bind: address already in use")
_FULL = (
    "address already in use",
    "exchange full",
    "cannot allocate memory",
    "out of memory",
    "no space left on device",
)


class ClientPool:
    """Lends clients. The SDK's are not safe between threads, and each asks the engine for its version when it is made.

    Short calls share 16 threads of their own, so a slow engine cannot starve the API's. What waits for long (a stop's
    grace, a pull, a stream) gets a thread to itself, which neither holds up short calls nor the end of the process.
    """

    def __init__(self, base_url: str | None = None, *, threads: int = 16) -> None:
        self._base_url = base_url
        self._idle: list[docker.APIClient] = []
        self._most_idle = threads
        self._closed = False
        self._limiter = CapacityLimiter(threads)

    async def call(self, work: Callable[[docker.APIClient], T]) -> T:
        """Run `work` with a client on a thread. EngineError for whatever the SDK raises."""
        return await anyio.to_thread.run_sync(self._run, work, limiter=self._limiter)

    async def call_long(self, work: Callable[[docker.APIClient], T]) -> T:
        """As `call`, for what waits for long. Cancelled, it leaves the thread to finish alone."""
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
        """A client that the caller closes."""
        where = {"base_url": self._base_url} if self._base_url else kwargs_from_env()
        client = docker.APIClient(version="auto", timeout=CALL_TIMEOUT, **where)
        _one_pool(client)
        return client

    def close(self) -> None:
        self._closed = True
        self._forget_idle()

    def _run(self, work: Callable[[docker.APIClient], T]) -> T:
        with translate_errors(), self._lent() as client:
            return work(client)

    @contextmanager
    def _lent(self) -> Iterator[docker.APIClient]:
        """A client for this thread alone. One that failed to reach the engine is not used again, nor are the idle ones:
        their connections are dead as well, and after an upgrade the version must be negotiated anew."""
        try:
            client = self._idle.pop()
        except IndexError:
            client = self.new()
        try:
            yield client
        except (APIError, EngineError):
            self._give_back(client)
            raise
        except BaseException:
            client.close()
            self._forget_idle()
            raise
        self._give_back(client)

    def _give_back(self, client: docker.APIClient) -> None:
        if self._closed or len(self._idle) >= self._most_idle:
            client.close()
        else:
            self._idle.append(client)

    def _forget_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def _one_pool(client: docker.APIClient) -> None:
    """The SDK keeps 25 pools of connections to a UNIX socket, one for each URL, and each container's is one
    (docker/transport/unixconn.py): hundreds of open files in the end. Its own `num_pools` is not heeded for such sockets."""
    given = client.adapters.get(_BY_SOCKET)
    if isinstance(given, UnixHTTPAdapter):
        client.mount(_BY_SOCKET, UnixHTTPAdapter(f"http+unix://{given.socket_path}", CALL_TIMEOUT, pool_connections=1))
        given.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Whatever the SDK raises within is raised as EngineError."""
    try:
        yield
    except FAILURES as error:
        raise engine_error(error) from error


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    """Call back in the loop's thread, unless the loop has gone."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        return


def engine_error(error: Exception, *, reason: str | None = None) -> EngineError:
    """What the SDK raised, in the engine's own words. It is transient when the engine did not answer."""
    if not isinstance(error, APIError):
        return EngineError(f"The engine does not answer: {error}", reason="engine_error", transient=True)
    words = str(error.explanation or error).strip()
    known = "port_taken" if any(sign in words.lower() for sign in _PORT_TAKEN) else None
    known = known or ("no_capacity" if any(sign in words.lower() for sign in _FULL) else "engine_error")
    return EngineError(words, reason=reason or known)
