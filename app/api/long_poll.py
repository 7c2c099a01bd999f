"""Responses that wait (`?wait=`) for the end of a deployment or a build."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from app.context import AppContext
from app.problems import Problem

RETRY_NOW = {"Retry-After": "1"}
CLIENT_CHECK_INTERVAL = 5.0
"""Seconds between two checks that the client is still connected."""


class LongPoll(ABC):
    """A deployment or a build whose end a response can wait for.

    `kind` is its word in paths and problems. `stopping` is the detail of the problem 503 when Sluice stops.
    """

    kind: ClassVar[str]
    stopping: ClassVar[str]

    def __init__(self, sluice: AppContext, id: int) -> None:
        self._sluice = sluice
        self._id = id
        self.headers: Mapping[str, str] = {"Location": f"/{self.kind}s/{id}"}

    @abstractmethod
    async def document(self) -> dict[str, Any]:
        """Return the document as it is now. Raises an error 404 if it does not exist."""

    @abstractmethod
    def changes(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Return a context with an event that is set after each change that may be the end."""

    @abstractmethod
    async def has_ended(self, changed: asyncio.Event) -> bool:
        """Tell whether it has ended. `changed` is the event of `changes`."""

    @abstractmethod
    def failure(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> Problem:
        """Return the problem 409 for one that ended without success."""

    async def wait_for_end(self, request: Request, seconds: float) -> bool:
        """Tell whether it ends within `seconds`; False too if the client leaves.

        Raises Problem (503) if Sluice stops.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with self.changes() as changed:
            while not await self.has_ended(changed):
                if self._sluice.stopping.is_set():
                    raise Problem("stopping", self.stopping, headers={**self.headers, **RETRY_NOW})
                left = end - loop.time()
                if left <= 0 or await request.is_disconnected():
                    return False
                await _first_of(changed, self._sluice.stopping, timeout=min(left, CLIENT_CHECK_INTERVAL))
        return True

    async def respond(self, request: Request, wait: float | None) -> Response:
        """Respond to the request that created it: 202 immediately, or by `?wait=` (docs/api.md)."""
        if not wait:
            return JSONResponse(await self.document(), 202, headers=dict(self.headers))
        ended = await self.wait_for_end(request, wait)
        document = await self.document()
        if not ended:
            raise self.timeout(document, wait, self.headers)
        if document["status"] != "succeeded":
            raise self.failure(document, self.headers)
        return JSONResponse(document, 200, headers=dict(self.headers))

    def timeout(self, document: Mapping[str, Any], wait: float, headers: Mapping[str, str], **more: Any) -> Problem:
        """Return the problem 504 for one that did not end within `wait` seconds."""
        detail = f"{self.kind} {self._id} of {document['service']} is still {document['status']} after {wait:g} s"
        return Problem("wait_timeout", detail, headers={**headers, **RETRY_NOW}, more={self.kind: document, **more})


async def _first_of(*events: asyncio.Event, timeout: float) -> None:
    """Wait until one of `events` is set, at most `timeout` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
