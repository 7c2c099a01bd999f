"""HTTP requests with bounded answers, for servers that Sluice does not control.

Sluice reads such answers only here. Cookies, redirects, proxies and content encodings are not supported, so the cost
of an answer is bounded by its bytes on the wire.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from services.outbound import OutboundPolicy

KIB = 1024
MAX_HEAD = 128 * KIB
"""Maximum bytes on the wire besides the body.

Counted are the status line, headers, interim answers, chunk framing and trailers.
"""
CONNECT_TIMEOUT = 1.0
"""Seconds to connect to an address of a name that has further addresses."""
DISCARD_TIMEOUT = 0.1
"""Seconds, at most, to read a body that was not requested."""
MAX_VALUES = 200_000
"""Maximum values in a JSON text: an empty list is two bytes on the wire and sixty in memory."""


class AnswerRefusedError(Exception):
    """The answer exceeds a limit or has the wrong format. The text is a sentence about "its answer"."""


@dataclass(frozen=True)
class BoundedResponse:
    """A status and the body as on the wire; b"" if the body was not requested."""

    status: int
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON. Raises AnswerRefusedError for other text and for too many values or levels."""
        if sum(map(self.body.count, (b",", b"[", b"{"))) > MAX_VALUES:
            raise AnswerRefusedError(f"response has more than {MAX_VALUES} JSON values")
        try:
            return json.loads(self.body)
        except RecursionError:
            raise AnswerRefusedError("response is not JSON: nested too deeply") from None
        except ValueError as error:
            raise AnswerRefusedError(f"response is not JSON: {error}") from None


class BoundedClient:
    """Client that sends each request on its own connection.

    - `max_body`: maximum bytes of a body.
    - `tls`: needed for https.
    - `outbound`: policy for URLs from a spec.
    - `user_agent`: the User-Agent of requests whose headers have none.
    - `transport`: replaces the network in tests.
    """

    def __init__(
        self,
        max_body: int,
        *,
        user_agent: str = "Sluice",
        tls: ssl.SSLContext | None = None,
        outbound: OutboundPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._max_body = max_body
        self._user_agent = user_agent
        self._outbound = outbound
        self._transport = transport or _Transport(2 * max_body + MAX_HEAD, tls, outbound)

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, timeout: float, body: bool = True
    ) -> BoundedResponse:
        """Return the complete answer within `timeout` seconds, or without `body` the status alone.

        Raises:
        - TimeoutError: there was no complete answer in time.
        - AnswerRefusedError: the answer exceeds a limit.
        - httpx.HTTPError: there was no answer.
        - OutboundRefusedError: the server may not be called.
        """
        if self._outbound is not None:
            self._outbound.check(url)
        request = _request(method, url, headers or {}, self._user_agent)
        async with asyncio.timeout(timeout), self._response(request) as response:
            if not body:
                await self._discard_body(response)
                return BoundedResponse(response.status_code)
            encoding = response.headers.get("content-encoding", "").strip().lower()
            if encoding not in ("", "identity"):
                raise AnswerRefusedError("response has a Content-Encoding, but identity was requested")
            read = bytearray()
            assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - for mypy
            async for part in response.stream:
                read += part
                if len(read) > self._max_body:
                    raise AnswerRefusedError(f"response is larger than {self._max_body // KIB} KiB")
            return BoundedResponse(response.status_code, bytes(read))

    async def _discard_body(self, response: httpx.Response) -> None:
        """Read a body of at most `max_body` bytes that comes within DISCARD_WITHIN seconds.

        A connection that is closed with unread bytes ends with RST, which a server may report as an error.
        """
        read = 0
        with suppress(TimeoutError, httpx.HTTPError, AnswerRefusedError):
            async with asyncio.timeout(DISCARD_TIMEOUT):
                async for part in response.aiter_raw():
                    read += len(part)
                    if read > self._max_body:
                        return

    async def close(self) -> None:
        await self._transport.aclose()

    @asynccontextmanager
    async def _response(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Send a request without httpx.AsyncClient, which stores cookies and decodes the bodies it reads."""
        response = await self._transport.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()


def _request(method: str, url: str, headers: Mapping[str, str], user_agent: str) -> httpx.Request:
    request = httpx.Request(method, url, headers=headers)
    request.headers["Accept-Encoding"] = "identity"
    request.headers["Connection"] = "close"
    request.headers.setdefault("User-Agent", user_agent)
    if request.url.userinfo:
        request = next(httpx.BasicAuth(request.url.username, request.url.password).auth_flow(request))
    return request


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's transport on connections that count the bytes read.

    h11 limits the size of each header block, but not their number.
    """

    def __init__(self, limit: int, tls: ssl.SSLContext | None, outbound: OutboundPolicy | None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, network_backend=_Network(limit, outbound), max_connections=None, max_keepalive_connections=0
        )


class _Network(httpcore.AsyncNetworkBackend):
    """Network backend that connects to exactly the address that was checked.

    A second resolution of the name could return another address.
    """

    def __init__(self, limit: int, outbound: OutboundPolicy | None) -> None:
        self._limit = limit
        self._outbound = outbound
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if self._outbound is None:
            return _Counted(await self._real.connect_tcp(host, port, timeout, local_address, socket_options), self._limit)
        try:
            addresses = await self._outbound.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                stream = await self._real.connect_tcp(address, port, CONNECT_TIMEOUT, local_address, socket_options)
                return _Counted(stream, self._limit)
        stream = await self._real.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)
        return _Counted(stream, self._limit)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


class _Counted(httpcore.AsyncNetworkStream):
    """A connection from which `left` more bytes may be read."""

    def __init__(self, real: httpcore.AsyncNetworkStream, left: int) -> None:
        self._real = real
        self._left = left

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._real.read(max_bytes, timeout)
        self._left -= len(data)
        if self._left < 0:
            raise AnswerRefusedError("response too large, including headers and framing")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._real.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._real.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Counted(await self._real.start_tls(ssl_context, server_hostname, timeout), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._real.get_extra_info(info)
