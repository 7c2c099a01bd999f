"""A network namespace for the browser, with loopback only and a SOCKS proxy to the host's loopback.

Chromium aborts loads (ERR_NETWORK_CHANGED) when an interface appears, and every container that starts or ends beside a
test creates one. The proxy's listening socket is created inside of the namespace and handed out, as a socket stays in
the namespace in which it was created.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from tests.browser.enter_network import PROXY_PORT

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PROXY = (f"--proxy-server=socks5://127.0.0.1:{PROXY_PORT}", "--proxy-bypass-list=<-loopback>")
GRANTED, REFUSED = b"\x05\x00\x00\x01" + bytes(6), b"\x05\x05\x00\x01" + bytes(6)


@contextmanager
def isolated() -> Iterator[dict[str, Any]]:
    """Yield the arguments for one `chromium.launch` of Playwright; the namespace ends with the browser."""
    assert Path(CHROMIUM).exists(), "the browser's tests need chromium: apt-get install chromium"
    with tempfile.TemporaryDirectory(prefix="s.") as place, socket.socket(socket.AF_UNIX) as handover:
        path = f"{place}/proxy"
        handover.bind(path)
        handover.listen()
        handover.setblocking(False)
        with start_blocking_portal() as portal:
            proxy = portal.start_task_soon(_serve, handover)
            yield {
                "executable_path": Path(__file__).parent / "isolated-chromium",
                "args": [*FLAGS, *PROXY],
                "env": {**os.environ, "SLUICE_TEST_PROXY": path, "SLUICE_TEST_PYTHON": sys.executable},
            }
            proxy.cancel()


async def _serve(handover: socket.socket) -> None:
    """Receive the listening socket and serve on it until cancelled."""
    connection, _ = await asyncio.get_running_loop().sock_accept(handover)
    with connection:
        connection.setblocking(True)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        async with await asyncio.start_server(_connect, sock=socket.socket(fileno=descriptors[0])) as server:
            connection.send(b"1")
            await server.serve_forever()


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection of the browser with SOCKS 5 (RFC 1928) without authentication."""
    with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\x00")
        *_, kind = await reader.readexactly(4)
        length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        address = await reader.readexactly(length)
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        family = {1: socket.AF_INET, 4: socket.AF_INET6}.get(kind)
        try:
            there = await asyncio.open_connection(socket.inet_ntop(family, address) if family else address.decode(), port)
        except OSError:
            writer.write(REFUSED)
            return
        writer.write(GRANTED)
        await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until the sender ends or the connection breaks; then close the other side."""
    with closing(writer), suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
