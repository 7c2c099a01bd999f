"""HTTP/2 client with prior knowledge, minimal: requests as plain literals, answers by DATA alone."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
Fields = list[tuple[str, str]]


class Http2:
    """One connection; one stream at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._stream = -1

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, b""))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._writer.close()

    async def get(self, path: str, fields: Fields) -> bytes:
        """Return the answer's whole body."""
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self._begin([*pseudo, *fields], END_STREAM)
        body, ended = b"", False
        async with asyncio.timeout(10):
            while not ended:
                data, ended = await self._data()
                body += data
        return body

    async def echo(self, path: str, fields: Fields, message: bytes) -> bytes:
        """Open a websocket (RFC 8441), send the message, and return the first bytes that come back."""
        pseudo = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "x"),
            (":path", path),
        ]
        self._begin([*pseudo, ("sec-websocket-version", "13"), *fields], 0)
        async with asyncio.timeout(10):
            while (await self._frame())[0] != HEADERS:
                pass
            self._writer.write(_frame(DATA, 0, self._stream, message))
            while True:
                data, ended = await self._data()
                if data or ended:
                    return data

    def _begin(self, fields: Fields, flags: int) -> None:
        self._stream += 2
        block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
        self._writer.write(_frame(HEADERS, flags | END_HEADERS, self._stream, block))

    async def _data(self) -> tuple[bytes, bool]:
        """Return the next DATA of the stream, empty for another frame, and whether the stream has ended."""
        kind, flags, payload = await self._frame()
        return (payload if kind == DATA else b""), kind in (DATA, HEADERS) and bool(flags & END_STREAM)

    async def _frame(self) -> tuple[int, int, bytes]:
        """Return the next frame's kind, flags and payload; there is one stream at a time.

        Raises ConnectionError for a reset.
        """
        head = await self._reader.readexactly(9)
        kind, flags = head[3], head[4]
        payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        if kind in (RST_STREAM, GOAWAY):
            raise ConnectionError(f"HTTP/2 frame {kind}: {payload.hex()}")
        if kind == SETTINGS and not flags & ACK:
            self._writer.write(_frame(SETTINGS, ACK, 0, b""))
        return kind, flags, payload


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _text(value: str) -> bytes:
    encoded = value.encode()
    if len(encoded) > 126:
        raise ValueError("such a length takes more than one byte")
    return bytes([len(encoded)]) + encoded
