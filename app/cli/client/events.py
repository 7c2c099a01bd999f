"""Client of Sluice's event streams (SSE): parses events, and resumes an interrupted stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from app.cli.client.http import Client, ServerUnavailable


@dataclass(frozen=True)
class Event:
    """One event of the API; `at` is its time as the API writes times."""

    id: int
    type: str
    message: str = ""
    at: str | None = None
    instance: str | None = None
    service: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Feed:
    """Events of `path`, read by a background task.

    The task reconnects when Sluice restarts, and sends Last-Event-ID so that no event is missed.
    """

    def __init__(self, client: Client, path: str, after: int = 0) -> None:
        self._client = client
        self._path = path
        self._after = after
        self._heard: asyncio.Queue[Event] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reading

    async def next(self, timeout: float) -> list[Event]:
        """Return the events received since the last call; [] if none arrives within `timeout` seconds.

        Raises CliError when Sluice stays unavailable or refuses the request.
        """
        assert self._reading is not None, "use the feed as a context manager"  # noqa: S101 - for mypy
        waiting = asyncio.ensure_future(self._heard.get())
        await asyncio.wait({waiting, self._reading}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            if self._reading.done():
                self._reading.result()
            return []
        heard = [waiting.result()]
        while not self._heard.empty():
            heard.append(self._heard.get_nowait())
        return heard

    async def _read(self) -> None:
        while True:
            await self._client.retry_while_unavailable(self._read_once)
            await asyncio.sleep(0.2)  # a stream that ends immediately must not become a busy loop

    async def _read_once(self) -> None:
        headers = {"Last-Event-ID": str(self._after)}
        async with self._client.stream(self._path, accept="text/event-stream", headers=headers) as lines:
            async for event in parse(lines):
                self._after = max(self._after, event.id)
                self._heard.put_nowait(event)


async def parse(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Yield the messages whose id is a number, as events."""
    async for id, body in messages(lines):
        if id.isdigit():
            yield _event(int(id), body)


async def messages(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield server-sent events as (id, data); comments and events without data are skipped.

    Raises ServerUnavailable if the data is not JSON.
    """
    id = ""
    data: list[str] = []
    async for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield id, _document("\n".join(data))
            id, data = "", []
        elif name == "id":
            id = value
        elif name == "data":
            data.append(value)


def _document(text: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ServerUnavailable(f"not an event stream: {error}", sent=True) from error
    return document


def _event(number: int, body: dict[str, Any]) -> Event:
    message = str(body.get("message") or body.get("text") or "")
    return Event(
        number, str(body.get("type", "")), message, body.get("at"), body.get("instance"), body.get("service"),
        body.get("data") or {},
    )  # fmt: skip
