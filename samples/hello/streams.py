"""Long-lived connections: server-sent events, and a websocket that echoes messages."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable

from http1 import Answer, Connection, Request

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_GOING_AWAY = (1001).to_bytes(2, "big")


def events(_: Request) -> Answer:
    """Send one event per second until the client disconnects or the process stops."""
    return Answer(content_type="text/event-stream", headers={"Cache-Control": "no-store"}, stream=_count)


def websocket(request: Request) -> Answer:
    """Echo messages; close with 1001, "going away", if the process stops."""
    key = request.headers.get("sec-websocket-key")
    if not key or request.headers.get("upgrade", "").lower() != "websocket":
        return Answer(400, b"this is a websocket\n")
    accept = base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()).decode()
    return Answer(
        101, headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}, stream=_echo
    )


async def _count(connection: Connection) -> None:
    number = 0
    while not connection.closed.is_set() and not connection.stopping.is_set():
        number += 1
        connection.transport.write(f"id: {number}\ndata: {number}\n\n".encode())
        await _first_of(connection.stopping.wait(), asyncio.sleep(1))


async def _echo(connection: Connection) -> None:
    heard = bytearray()
    while not connection.stopping.is_set():
        await _first_of(connection.stopping.wait(), connection.more())
        heard += connection.take()
        while (frame := _take_frame(heard)) is not None:
            kind, payload = frame
            if kind == _CLOSE:
                connection.transport.write(_frame(_CLOSE, payload[:2]))
                return
            if kind in (_TEXT, _BINARY, _PING):
                connection.transport.write(_frame(_PONG if kind == _PING else kind, payload))
    connection.transport.write(_frame(_CLOSE, _GOING_AWAY))


def _take_frame(heard: bytearray) -> tuple[int, bytes] | None:
    """Remove and return the first complete frame; None if there is none. Fragments are not joined."""
    if len(heard) < 2:
        return None
    length, at = heard[1] & 127, 2
    if length >= 126:
        wide = 2 if length == 126 else 8
        length, at = int.from_bytes(heard[2 : 2 + wide], "big"), 2 + wide
    mask, at = (heard[at : at + 4], at + 4) if heard[1] & 128 else (b"\0" * 4, at)
    if len(heard) < at + length:
        return None
    kind = heard[0] & 15
    payload = bytes(byte ^ mask[place & 3] for place, byte in enumerate(heard[at : at + length]))
    del heard[: at + length]
    return kind, payload


def _frame(kind: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes((128 | kind, length)) + payload
    if length < 65_536:
        return bytes((128 | kind, 126)) + length.to_bytes(2, "big") + payload
    return bytes((128 | kind, 127)) + length.to_bytes(8, "big") + payload


async def _first_of(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
