"""Headers that the gateway removes in both directions: session cookies, names in Connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.gateway_fixture import BRIDGE, INTERNAL, PORT, PUBLIC, GatewayFixture, real_gateway, service
from tests.support.http2_client import Http2

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
SECRET = "s3cr3t"
SESSION, HOST_SESSION = f"sluice_session_sluice={SECRET}", f"__Host-sluice_session_sluice={SECRET}"
WEBSOCKET = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = f"Connection: Upgrade\r\n{WEBSOCKET}"


@pytest.fixture(scope="module")
async def shared_gateway(image: str) -> AsyncIterator[GatewayFixture]:
    """Run a gateway with one service and one instance for all tests of the module."""
    async with real_gateway() as place:
        await place.serve(service("web", linked=True), 1)
        yield place


async def exchange(lines: str, *, path: str = "/web/x", port: int = PUBLIC, at: str = "127.0.0.1", host: str = "x") -> bytes:
    """Send a request with these header lines on a new connection and return the raw response."""
    reader, writer = await asyncio.open_connection(at, port)
    try:
        async with asyncio.timeout(10):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode("latin-1"))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
            return head + await reader.readexactly(length)
    finally:
        writer.close()


def seen(answer: bytes) -> dict[str, str]:
    """Return the headers that the instance got; values of one name are joined by a comma."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return dict(json.loads(body)["headers"])


def set_cookies(answer: bytes) -> list[bytes]:
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line.partition(b":")[2].strip() for line in lines if line.lower().startswith(b"set-cookie")]


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ([SESSION], None),
        ([HOST_SESSION], None),
        ([f"{SESSION}; a=1;  b=2"], "a=1;  b=2"),
        ([f"a=1; {SESSION}; b=2"], "a=1; b=2"),
        ([f"a=1; b=2; {SESSION}"], "a=1; b=2"),
        ([f"{SESSION};{HOST_SESSION};sluice_session_b=2; a=1;sluice_session_c"], "a=1"),
        ([f'a="x; {SESSION}; y"; b=2'], 'a="x; y"; b=2'),
        ([f'a=1;\t  "{SESSION}";b=2'], "a=1;b=2"),
        ([f"$Version=1; {SESSION}; $Path=/"], "$Version=1; $Path=/"),
        ([f"a=1; sluice_session_sluice ={SECRET}"], "a=1"),
        ([f"a=1; ={SESSION}"], "a=1"),
        ([f"a=1; \xa0\x1f{SESSION}"], "a=1"),
        ([SESSION, "a=1", f"b=2; {SESSION}", f"{HOST_SESSION}; c=3"], "a=1, b=2, c=3"),
    ],
)
async def test_session_cookie_reaches_no_instance(
    shared_gateway: GatewayFixture, sent: list[str], passed: str | None
) -> None:
    got = seen(await exchange("".join(f"cOOkie: {value}\r\n" for value in sent)))
    assert SECRET not in json.dumps(got)
    assert got.get("cookie") == passed


@pytest.mark.parametrize(
    "sent", ["a=1", ' a=1;b="x;y" ;;c', "a=sluice_session_x", "my_sluice_session_x=1; b=2", "sluice_sessions=1", "é=\xff; a"]
)
async def test_other_cookies_pass_unchanged(shared_gateway: GatewayFixture, sent: str) -> None:
    assert seen(await exchange(f"Cookie: {sent}\r\n"))["cookie"] == sent.strip()


async def test_instances_cannot_set_a_session_cookie(shared_gateway: GatewayFixture) -> None:
    [instance] = shared_gateway.instances
    retained = [b"a=sluice_session_x; Path=/", b"b=2; HttpOnly", b"my_sluice_session_x=1"]
    refused = [b"sluice_session_sluice=evil; Path=/", b"__Host-sluice_session_sluice=evil; Secure; Path=/"]
    refused += [b"=sluice_session_sluice=evil", b'"sluice_session_sluice"=evil', b"\xa0sluice_session_sluice=evil"]
    values = [refused[0], retained[0], *refused[1:], *retained[1:]]
    instance.more_headers = [b"sEt-cooKie:  " + value + b"\r\n" for value in values]
    try:
        assert set_cookies(await exchange("")) == retained
        assert set_cookies(await exchange(UPGRADE, path="/web/ws")) == retained
        instance.more_headers = [b"Set-Cookie: " + value + b"\r\n" for value in refused]
        assert b"sluice_session" not in await exchange("")
        assert b"sluice_session" not in await exchange(UPGRADE, path="/web/ws")
    finally:
        instance.more_headers = []


@pytest.mark.parametrize("door", [{"port": INTERNAL, "at": BRIDGE}, {"port": PORT, "at": BRIDGE, "host": f"web:{PORT}"}])
async def test_session_cookie_is_removed_on_internal_ports_and_links(
    shared_gateway: GatewayFixture, door: dict[str, Any]
) -> None:
    [instance] = shared_gateway.instances
    instance.more_headers = [b"Set-Cookie: sluice_session_sluice=evil\r\n"]
    try:
        answer = await exchange(f"Cookie: a=1; {SESSION}\r\nConnection: X-Forwarded-For\r\n", path="/x", **door)
    finally:
        instance.more_headers = []
    assert set_cookies(answer) == []
    assert seen(answer)["cookie"] == "a=1"
    assert "connection" not in seen(answer)


async def test_session_cookie_is_removed_from_websockets_and_http2(shared_gateway: GatewayFixture) -> None:
    [instance] = shared_gateway.instances
    assert b" 101 " in await exchange(f"Cookie: a=1; {SESSION}\r\n{UPGRADE}", path="/web/ws")
    assert instance.asked[-1].headers["cookie"] == "a=1"
    async with Http2("127.0.0.1", PUBLIC) as client:
        crumbs = [("cookie", "a=1"), ("cookie", SESSION), ("cookie", "b=2"), ("cookie", HOST_SESSION)]
        got = json.loads(await client.get("/web/x", crumbs))["headers"]
        assert got["cookie"] == "a=1; b=2"
        echoed = await client.echo("/web/ws", [("cookie", SESSION)], b"hello")
        assert echoed == b"hello", echoed
    assert "cookie" not in instance.asked[-1].headers


@pytest.mark.parametrize(
    "named",
    [
        "close, X-Forwarded-For",
        "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Prefix, Host, Authorization, Cookie, X-Real-IP",
        "keep-alive\r\nConnection: X-Forwarded-For",
        " ,x-forwarded-FOR ,",
    ],
)
async def test_connection_header_cannot_make_an_instance_drop_other_headers(
    shared_gateway: GatewayFixture, named: str
) -> None:
    got = seen(await exchange(f"Connection: {named}\r\nAuthorization: Bearer x\r\nCookie: a=1\r\n"))
    assert got.get("connection", "").lower() in ("", "close", "keep-alive")
    assert (got["x-forwarded-for"], got["authorization"], got["cookie"]) == ("127.0.0.1", "Bearer x", "a=1")


async def test_upgrade_passes_without_other_names_in_connection(shared_gateway: GatewayFixture) -> None:
    [instance] = shared_gateway.instances
    named = "Connection: keep-alive, X-Forwarded-For, upGrade\r\nConnection: Cookie\r\n"
    assert b" 101 " in await exchange(named + WEBSOCKET, path="/web/ws")
    got = instance.asked[-1].headers
    assert (got["connection"].lower(), got["upgrade"], got["x-forwarded-for"]) == ("upgrade", "websocket", "127.0.0.1")


@pytest.mark.parametrize("asked", ["h2c", "H2C", "h2", "h2, h2c", "h2c\r\nUpgrade: h2c"])
async def test_upgrade_to_http2_is_not_forwarded_to_instances(shared_gateway: GatewayFixture, asked: str) -> None:
    """The gateway does not inspect an upgraded connection: HTTP/2 inside could carry any header."""
    lines = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {asked}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    got = seen(await exchange(lines))
    assert "upgrade" not in got and "connection" not in got
