"""Every response of another server is bounded in bytes, time and encoding; on real connections."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from itertools import chain, repeat

import httpx
import pytest

from services.bounded_http import MAX_HEAD, AnswerRefusedError, BoundedClient, BoundedResponse
from services.clock import SystemClock
from services.probes import Prober, ProbeTarget
from services.spec import Healthcheck
from tests.support.raw_http import server

pytestmark = pytest.mark.anyio
MAX_BODY = 64 * 1024
OK = b"HTTP/1.1 200 x\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(parts: Iterable[bytes], *, timeout: float = 30, body: bool = True) -> BoundedResponse:
    client = BoundedClient(MAX_BODY)
    async with server(lambda: parts) as url:
        try:
            return await client.ask("GET", url, timeout=timeout, body=body)
        finally:
            await client.close()


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([OK + b"content-encoding: gzip\r\n\r\n", gzip.compress(b"{}")], "Content-Encoding"),
        ([OK + b"content-encoding: identity\r\ncontent-encoding: br\r\n\r\n", b"{}"], "Content-Encoding"),
        ([OK + b"\r\n", b" " * (MAX_BODY + 1)], "larger than 64 KiB"),
        (chain([OK + b"\r\n"], repeat(b" " * 1000)), "larger than 64 KiB"),
        (chain([CHUNKED + b"7fffffff\r\n"], repeat(b"x" * 100_000)), "larger than 64 KiB"),
        (chain([CHUNKED], repeat(b"1;" + b"x" * 1000 + b"\r\na\r\n")), "headers and framing"),
        (repeat(b"HTTP/1.1 103 x\r\nlink: " + b"x" * 1000 + b"\r\n\r\n"), "headers and framing"),
    ],
    ids=["gzip", "br", "long", "endless", "one-chunk", "extensions", "interim"],
)  # fmt: skip
async def test_response_beyond_limit_is_refused_with_cause(parts: Iterable[bytes], why: str) -> None:
    with pytest.raises(AnswerRefusedError, match=why):
        await ask(parts)


@pytest.mark.parametrize(("before", "body"), [(OK, True), (OK, False), (CHUNKED + b"0\r\n", True)])
async def test_endless_headers_and_trailers_are_refused(before: bytes, body: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="too long"):
        await ask(chain([before], repeat(b"a: " + b"b" * 100 + b"\r\n")), body=body)


async def test_slow_response_is_abandoned_after_total_timeout() -> None:
    with pytest.raises(TimeoutError):
        await ask(chain([OK + b"\r\n"], repeat(b" ", 100), [b""]), timeout=0.3)
    with pytest.raises(TimeoutError):
        await ask(chain([OK + b"a: ", b"b"], [b""]), timeout=0.3)


async def test_largest_allowed_responses_are_read_completely() -> None:
    assert len((await ask([OK + b"\r\n", b"x" * MAX_BODY])).body) == MAX_BODY
    chunks = [b"1\r\nx\r\n"] * (MAX_HEAD // 8)
    assert (await ask([CHUNKED, *chunks, b"0\r\n\r\n"])).body == b"x" * len(chunks)


async def test_request_for_status_alone_does_not_wait_for_end_of_body() -> None:
    assert (await ask(chain([OK + b"content-encoding: gzip\r\n\r\n"], repeat(b"x" * 1000)), body=False)) == BoundedResponse(
        200
    )


async def test_cookie_is_never_sent_back_and_no_encoding_is_requested() -> None:
    received: list[bytes] = []
    client = BoundedClient(MAX_BODY)
    async with server(lambda: [OK + b"set-cookie: a=b; Path=/\r\n\r\n"], received) as url:
        for _ in range(2):
            await client.ask("GET", url.replace("//", "//me:secret@"), {"accept-encoding": "gzip"}, timeout=30)
    await client.close()
    first, second = (head.lower() for head in received)
    assert first == second
    assert b"cookie" not in second
    assert b"\r\naccept-encoding: identity\r\n" in second
    assert b"\r\nauthorization: basic bwu6c2vjcmv0\r\n" in second


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 60_000, "nested too deeply"),
        (b"[" + b"1," * 250_000 + b"1]", "more than 200000 JSON values"),
        (b"[" + b"[]," * 150_000 + b"1]", "more than 200000 JSON values"),
        (b"1" * 5000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
    ],
    ids=["deep", "values", "lists", "digits", "not-utf-8", "empty"],
)
def test_json_is_bounded_in_values_and_depth(body: bytes, why: str) -> None:
    with pytest.raises(AnswerRefusedError, match=why):
        BoundedResponse(200, body).json()


async def test_probe_response_compressed_twice_is_not_decoded() -> None:
    bomb = gzip.compress(gzip.compress(bytes(50 * 1024 * 1024)))
    prober = Prober(SystemClock(), lambda _: None)
    async with server(lambda: [OK + b"content-encoding: gzip, gzip\r\n\r\n", bomb]) as url:
        port = int(url.rpartition(":")[2])
        check = Healthcheck(path="/", expect_json={"status": "UP"}, timeout=30)
        healthy = await prober.ask_all([ProbeTarget("web-r1-1", "1", "127.0.0.1", port, check)])
    await prober.stop()
    assert healthy == set()
    reported = "response has a Content-Encoding, but identity was requested"
    assert prober.last_errors(["web-r1-1"]) == {"web-r1-1": reported}


async def test_unresponsive_server_delays_no_request_to_another() -> None:
    client = BoundedClient(MAX_BODY)
    async with server(lambda: [b""]) as mute, server(lambda: [OK + b"\r\n"]) as well:
        waiting = [asyncio.create_task(client.ask("GET", mute, timeout=600)) for _ in range(150)]
        assert await client.ask("GET", well, timeout=30) == BoundedResponse(200)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await client.ask("GET", well, timeout=30) == BoundedResponse(200)
    await client.close()
