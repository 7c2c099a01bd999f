"""HTTP client of Sluice's API: JSON requests, problems as CliError, retries while Sluice restarts."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from app.cli.client.server_address import ServerAddress
from app.cli.errors import CliError, refused, unreachable, usage
from services.backoff import Backoff

T = TypeVar("T")
RECONNECT_TIMEOUT = 120.0
"""Seconds that a Sluice that has answered before may be unavailable; the default of SLUICE_PATIENCE."""
_DELAYS = Backoff(0.1, 2.0)
_HERE = ("127.0.0.1", "::1", "localhost")
"""Hosts that are never reached through a proxy of the environment."""
_CONNECT_TIMEOUT = 5.0
_READ_TIMEOUT = 45.0
"""Read timeout in seconds.

An open stream sends something (at least a comment) every 15 s, so three times as long means a dead connection.
"""


class ServerUnavailable(Exception):
    """Failure of one request that may be repeated: not reached, connection lost, or Sluice restarting.

    `sent`: the request may have reached Sluice. `after`: seconds of Sluice's Retry-After, None without one.
    """

    def __init__(self, why: str, *, sent: bool, after: float | None = None) -> None:
        super().__init__(why)
        self.sent = sent
        self.after = after


class Client:
    """Client of one Sluice, which repeats requests while that Sluice is unavailable.

    It calls `on_availability_change(why)` when Sluice stops answering, and with None when Sluice answers again.
    """

    def __init__(self, server: ServerAddress, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.place = server
        self.on_availability_change: Callable[[str | None], None] = lambda _why: None
        self._reconnect_timeout = _reconnect_timeout()
        self._answered = False
        self._away_since: float | None = None
        headers = {"User-Agent": "sluice-cli", "Accept": "application/json"}
        if server.token:
            headers["Authorization"] = f"Bearer {server.token}"
        address = httpx.URL(server.url)
        here = address.host in _HERE
        self._http = httpx.AsyncClient(
            base_url=server.url,
            headers=headers,
            transport=transport,
            timeout=httpx.Timeout(_READ_TIMEOUT, connect=_CONNECT_TIMEOUT),
            trust_env=not here,
            # loading certificates takes a while, and plain HTTP on loopback needs none
            verify=not (here and address.scheme == "http"),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, *, accepted_status: int = 200, **params: Any) -> Any:
        """Return the document at `path`; parameters that are None are omitted.

        `accepted_status`: a status other than 2xx whose body is returned as well. Raises CliError.
        """
        return await self.retry_while_unavailable(
            lambda: self._answer("GET", path, accepted_status, params=_present(params))
        )

    async def get_all(self, path: str, *, most: int | None = None, **params: Any) -> list[Any]:
        """Return the items of a list from all its pages, at most `most`."""
        items: list[Any] = []
        cursor: str | None = None
        while most is None or len(items) < most:
            limit = 200 if most is None else min(200, most - len(items))
            page = await self.get(path, limit=limit, cursor=cursor, **params)
            items += page["items"]
            cursor = page.get("next")
            if not cursor:
                break
        return items

    async def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Post `body` and return the answer's document.

        The request carries an Idempotency-Key, so repeating it after a lost answer runs it only once.
        """
        sent = {**_new_idempotency_key(), **(headers or {})}
        return await self.retry_while_unavailable(
            lambda: self._answer("POST", path, json={} if body is None else body, headers=sent)
        )

    async def send(self, path: str, file: Path, media_type: str, **params: Any) -> Any:
        """Post a file as the body, with an Idempotency-Key as in `post`, and return the answer's document."""
        sent = {**_new_idempotency_key(), **_upload_headers(file, media_type)}
        asked = _present(params)
        return await self.retry_while_unavailable(
            lambda: self._answer("POST", path, params=asked, content=_chunks(file), headers=sent)
        )

    async def delete(self, path: str) -> Any:
        """Send DELETE with an Idempotency-Key as in `post`; return the answer's document, None if it has none."""
        sent = _new_idempotency_key()
        return await self.retry_while_unavailable(lambda: self._answer("DELETE", path, headers=sent))

    @asynccontextmanager
    async def stream(
        self, path: str, *, accept: str, headers: Mapping[str, str] | None = None, **params: Any
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Yield the lines of a streamed answer.

        Raises ServerUnavailable if the stream is cut off, CliError if Sluice refuses the request.
        """
        try:
            async with self._http.stream(
                "GET", path, params=_present(params), headers={"Accept": accept, **(headers or {})}
            ) as response:
                await self._checked(response)
                yield _lines(response.aiter_text())
        except httpx.TransportError as error:
            raise _away(error) from error

    async def retry_while_unavailable(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat `call` until Sluice answers.

        A Sluice that has never answered is given up immediately, unless the request may have reached it.
        """
        attempt = 0
        while True:
            try:
                answer = await call()
            except ServerUnavailable as away:
                await self._wait_or_give_up(away, attempt)
                attempt += 1
            else:
                self.record_answer()
                return answer

    def record_answer(self) -> None:
        """Record that Sluice answers; calls `on_availability_change(None)` if it was unavailable."""
        self._answered = True
        if self._away_since is not None:
            self._away_since = None
            self.on_availability_change(None)

    async def _wait_or_give_up(self, away: ServerUnavailable, attempt: int) -> None:
        if not self._answered and not away.sent:
            raise unreachable(self.place.url, str(away)) from away
        if self._away_since is None:
            self._away_since = time.monotonic()
            self.on_availability_change(str(away))
        if time.monotonic() - self._away_since > self._reconnect_timeout:
            advice = f"The request continues when Sluice is back: `sluice status`. Waited {self._reconnect_timeout:.0f} s."
            raise unreachable(self.place.url, str(away), advice) from away
        await asyncio.sleep(away.after or _DELAYS.delay(attempt))

    async def _answer(self, method: str, path: str, accepted_status: int = 200, **request: Any) -> Any:
        try:
            response = await self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise _away(error) from error
        if response.status_code != accepted_status:
            await self._checked(response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise _foreign_response_error(self.place.url, response) from None

    async def _checked(self, response: httpx.Response) -> None:
        """Accept a 2xx answer; raise ServerUnavailable if Sluice is restarting, CliError for any other answer."""
        if response.is_success:
            self.record_answer()
            return
        await response.aread()
        problem = _problem(response)
        restarting = problem.get("code") == "stopping" or (not problem and response.status_code in (502, 503, 504))
        if restarting:
            why = str(problem.get("detail") or f"HTTP {response.status_code}")
            raise ServerUnavailable(why, sent=True, after=_seconds(response.headers.get("Retry-After")))
        if not problem:
            raise _foreign_response_error(self.place.url, response)
        raise refused(response.status_code, problem)


def _reconnect_timeout() -> float:
    given = os.environ.get("SLUICE_PATIENCE") or RECONNECT_TIMEOUT
    try:
        return max(0.0, float(given))
    except ValueError:
        raise usage(f"SLUICE_PATIENCE={given!r} is not a number of seconds") from None


def _upload_headers(file: Path, media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type, "Content-Length": str(file.stat().st_size)}


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(256 * 1024):
            yield chunk


def _new_idempotency_key() -> dict[str, str]:
    return {"Idempotency-Key": f"cli-{uuid.uuid4()}"}


def _away(error: httpx.TransportError) -> ServerUnavailable:
    sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | httpx.ProxyError)
    return ServerUnavailable(_why(error), sent=sent)


def _why(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectTimeout():
            return f"no connection within {_CONNECT_TIMEOUT:g} s"
        case httpx.ReadTimeout():
            return f"no answer within {_READ_TIMEOUT:g} s"
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            return "connection lost"
        case httpx.ConnectError() if str(error) == "All connection attempts failed":
            return "no connection"
    return str(error) or type(error).__name__


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) and ("code" in problem or "detail" in problem) else {}


def _foreign_response_error(url: str, response: httpx.Response) -> CliError:
    return unreachable(
        url, f"HTTP {response.status_code} that is not from Sluice", "Check that this is the address of Sluice's API."
    )


async def _lines(text: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield lines without their line end, which is a newline only.

    httpx's own line iterator also splits at U+2028, in the middle of an event.
    """
    begun = ""
    async for part in text:
        *whole, begun = f"{begun}{part}".split("\n")
        for line in whole:
            yield line.removesuffix("\r")
    if begun:
        yield begun


def _present(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items() if value is not None
    }


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
