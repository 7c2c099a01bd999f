"""HTTP client of Sluice's public API, used by demos and measurements to change services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx

_TERMINAL = {"succeeded", "rolled_back", "aborted", "rollback_failed", "failed", "superseded"}


class UnexpectedResult(Exception):
    """A demo or measurement did not go as expected; the message says why."""


class Api:
    """Client of the Sluice at `url`, with a token.

    Every call raises Spoilt if Sluice does not answer or refuses.
    """

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(10, read=60)
        )

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        return await self._answer("GET", path, params=params)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._answer("POST", path, json=body, headers={"Idempotency-Key": uuid4().hex})

    async def change(self, path: str, body: dict[str, Any], told: Callable[[str], None]) -> dict[str, Any]:
        """Post the change, wait for its deployment's end, and return it; `told` receives each event's message."""
        deployment = await self.post(path, body)
        listening = asyncio.create_task(self._listen(deployment["links"]["events"], told))
        try:
            while deployment["status"] not in _TERMINAL | {"paused"}:
                deployment = await self.get(deployment["links"]["self"], wait=30)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError, httpx.HTTPError):
                await listening
        return deployment

    async def _answer(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = await self.http.request(method, path, **request)
        except httpx.TransportError as error:
            raise UnexpectedResult(f"Sluice does not answer at {self.http.base_url}: {error}") from error
        if not answer.is_success:
            raise UnexpectedResult(f"{method} {path}: {answer.status_code} {answer.text}")
        document: dict[str, Any] = answer.json()
        return document

    async def _listen(self, path: str, told: Callable[[str], None]) -> None:
        async with self.http.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    with suppress(ValueError):
                        told(str(json.loads(line[5:]).get("message") or ""))
