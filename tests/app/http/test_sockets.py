"""The sockets of the API and of the registry."""

from __future__ import annotations

import asyncio
import socket

import pytest

from app.http.sockets import bind_tcp


@pytest.mark.anyio
async def test_sockets_send_without_waiting_for_the_acknowledgement_of_earlier_data() -> None:
    delays: list[int] = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delays.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = bind_tcp("127.0.0.1", 0)
    port = listening.getsockname()[1]
    async with await asyncio.start_server(answer, sock=listening):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read()
        writer.close()
    assert delays == [1]


def test_address_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        bind_tcp("127.0.0.1", taken.getsockname()[1])
