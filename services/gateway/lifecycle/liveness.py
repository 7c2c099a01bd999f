"""Liveness probe of the public port, as a client from outside sees it."""

from __future__ import annotations

import asyncio
from typing import Literal

ANSWER_TIMEOUT = 2.0
"""Seconds that HAProxy may take to refuse an invalid request."""


async def probe_public_port(port: int) -> Literal["answers", "silent", "closed"]:
    """Return whether HAProxy answers at the public port.

    `silent`: only the kernel accepts connections. `closed`: a connection is refused, or closed without an answer. The probe
    does not send HTTP: HAProxy itself refuses it, and no instance ever sees it.
    """
    writer = None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
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
