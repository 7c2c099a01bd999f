"""Pages that stay true: page and stream draw the same parts from one look at the store; the stream sends what changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.sse import format_sse_event
from sqlmodel import Session

from app.api.sse import streaming
from app.api.wait import first_of
from app.auth import Caller, identify
from app.context import AppContext
from app.live.live_views import Fragments, VersionedCache
from app.pages import render

HEARTBEAT_INTERVAL = 15.0
"""Seconds of quiet after which a stream says that it stands; the page's script gives up on one after more than two."""
CHECK = 3.0
"""Seconds between two times that a stream asks whether its session is still good."""


@dataclass(frozen=True)
class LivePage:
    """A page's template and the live parts that it places. `rows`: the list among them whose rows are parts as well; their
    contexts are the look's `rows`, by name."""

    template: str
    parts: tuple[str, ...]
    rows: str = ""

    def draw(self, context: Mapping[str, Any], memo: VersionedCache) -> Fragments:
        """A row that is as it was is not drawn again."""
        rows = {
            name: memo.of((self.rows, name), row, partial(render.row, self.rows, row))
            for name, row in (context["rows"].items() if self.rows else ())
        }
        return Fragments(render.fragments(self.parts, {**context, "drawn": rows}), rows, self.rows)


@dataclass(frozen=True)
class PageSource:
    """What a page looks at. `look`: what the templates need, from one read transaction; None when there is no such thing.
    Its `about`, where there is one, is the service that the page can change.
    `stamp`: what differs when that may differ; after `every` seconds it is looked though it does not.
    `ask`: what an open page shows of others than the store; the look's context has it as `asked`."""

    look: Callable[[Session, AppContext], dict[str, Any] | None]
    stamp: Callable[[AppContext], object]
    every: float | None = None
    ask: Callable[[AppContext], Awaitable[Any]] | None = None


async def show(
    request: Request,
    viewer: Caller,
    runtime_status: LivePage,
    sight: PageSource,
    *,
    here: str | None = None,
    error: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """The whole page as it is now; 404 as a page when there is no such thing. `here`: the page's own address, where the
    request had another one; `error`: a sentence about what was not done."""
    sluice: AppContext = request.app.state.sluice

    def draw(session: Session) -> HTMLResponse:
        context = sight.look(session, sluice)
        if context is None:
            return missing()
        context = {**context, **_may(viewer, context), "asked": None}
        parts = runtime_status.draw(context, sluice.live_views.memo).fixed
        address = here or request.url.path
        presenter_context = {
            "here": address,
            "stream": f"{address.rstrip('/')}/stream",
            "now": sluice.clock.now(),
            "part": lambda name, look="card": render.section(name, parts[name], look),
            "refusal": error,
        }
        return render.page(runtime_status.template, {**context, **presenter_context}, status)

    return await sluice.store.read(draw)


def _may(viewer: Caller, context: Mapping[str, Any]) -> dict[str, bool]:
    """What the page offers: who may not do it is not shown the button."""
    mine = "about" not in context or viewer.principal.allows_service(context["about"])
    return {"may_act": mine and viewer.may("deploy"), "may_write": mine and viewer.may("write")}


def missing() -> HTMLResponse:
    """404 as a page."""
    words = {"title": "There is nothing here", "detail": "It may never have been, or the address is mistyped."}
    return render.page("problem.html", {**words, "stream": None}, 404)


def stream(request: Request, viewer: Caller, runtime_status: LivePage, sight: PageSource) -> StreamingResponse:
    """First every part, then at each wake-up those that differ from what this stream has sent. Ends when Sluice stops,
    when the session has ended (saying `signed-out`), or when the thing itself has (`gone`). What is said to all who look at
    the same page with the same rights is made once."""
    sluice: AppContext = request.app.state.sluice
    alike = (request.url.path, viewer.principal.scope, viewer.principal.services)

    async def ask() -> Any:
        return await sight.ask(sluice) if sight.ask is not None else None

    def draw(session: Session, asked: Any) -> Fragments | None:
        context = sight.look(session, sluice)
        if context is None:
            return None
        return runtime_status.draw({**context, **_may(viewer, context), "asked": asked}, sluice.live_views.memo)

    async def lines() -> AsyncIterator[bytes]:
        every = sight.every or HEARTBEAT_INTERVAL
        async with sluice.live_views.watch(alike, every, ask, lambda: sight.stamp(sluice), draw) as drawing:
            yield format_sse_event(event="hello", data_str=render.fingerprint())
            sent: Fragments | None = None
            check_again = said = time.monotonic()
            while not sluice.stopping.is_set():
                changed = drawing.next()
                if time.monotonic() >= check_again:
                    if await identify(request) is None:
                        yield format_sse_event(event="signed-out", data_str="-")
                        return
                    check_again = time.monotonic() + CHECK
                parts = await drawing.parts()
                if parts is None:
                    yield format_sse_event(event="gone", data_str="-")
                    return
                if line := drawing.told.of("", (sent, parts), partial(_news, sent, parts)):
                    yield line
                    sent, said = parts, time.monotonic()
                elif time.monotonic() - said >= HEARTBEAT_INTERVAL:
                    yield format_sse_event(event="beat", data_str="-")
                    said = time.monotonic()
                await first_of(changed, sluice.stopping, timeout=min(CHECK, HEARTBEAT_INTERVAL))

    return streaming(sluice, lines, "text/event-stream")


def _news(before: Fragments | None, now: Fragments) -> bytes:
    """The message that brings `now` to who has seen `before`; none when nothing is new."""
    news = now.since(before)
    return format_sse_event(data_str=render.patch(news)) if news else b""
