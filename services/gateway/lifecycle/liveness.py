"""Whether anybody answers at the public door, asked as a stranger would."""

from __future__ import annotations

import asyncio
from typing import Literal

ANSWER = 2.0
"""Seconds that HAProxy may take to refuse what is no request."""


async def probe_public_port(port: int) -> Literal["answers", "silent", "closed"]:
    """`silent`: connections are taken, by the kernel alone. What is sent is no HTTP: HAProxy itself refuses it, no instance
    ever sees it."""
    writer = None
    try:
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"knock\r\n\r\n")
            return "answers" if await reader.read(1) else "closed"
    except TimeoutError:
        return "silent"
    except OSError:
        return "closed"
    finally:
        if writer is not None:
            writer.transport.abort()
