"""Proxy of the engine that a test can interrupt: callers see what they see when an engine restarts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class EngineProxy:
    """Proxy that listens at `path`, a Unix socket, and forwards to the engine while it is open."""

    def __init__(self, path: Path) -> None:
        self.base_url = f"unix://{path}"
        self.passed = 0
        """Number of forwarded connections."""
        self.before: Callable[[str], Awaitable[None]] | None = None
        """Awaited with a request's first line before the engine receives it.

        If this raises ConnectionError, the engine never receives the request.
        """
        self._path = path
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> EngineProxy:
        self._server = await asyncio.start_unix_server(self._pass_on, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.slam()
        assert self._server is not None
        self._server.close()

    def slam(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        self._open = True

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        self.passed += 1
        from_engine, to_engine = await asyncio.open_unix_connection(ENGINE)
        ends = {writer, to_engine}
        self._writers |= ends
        await asyncio.gather(_pump(reader, to_engine, self._look), _pump(from_engine, writer))
        self._writers -= ends
        for end in ends:
            end.close()

    async def _look(self, chunk: bytes) -> None:
        if self.before is not None and chunk.startswith((b"GET ", b"POST ", b"DELETE ")):
            await self.before(chunk.split(b"\r\n", 1)[0].decode())


async def _nothing(_: bytes) -> None:
    return


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], Awaitable[None]] = _nothing
) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            await look(chunk)
            writer.write(chunk)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()
