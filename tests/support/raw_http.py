"""A real HTTP server that answers every request with the bytes that a test gives, well-formed or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def server(answer: Callable[[], Iterable[bytes]], received: list[bytes] | None = None) -> AsyncIterator[str]:
    """Yield the server's URL. It writes each part of `answer()`, closes, and adds requests to `received`.

    The parts may be endless: the connection ends when the client closes it.
    """
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with suppress(OSError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            if received is not None:
                received.append(head)
            for part in answer():
                if not part:  # send nothing more until the client closes
                    await reader.read()
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()
        connections.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*listening.sockets[0].getsockname())
    finally:
        listening.close()
        for task in list(connections):
            task.cancel()
        await listening.wait_closed()
