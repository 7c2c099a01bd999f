"""Pages that stay true: page and stream draw the same parts from one look at the store; the stream sends what changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.sse import ServerSentEvent
from sqlmodel import Session

from app.auth import Caller
from app.pages import render
from app.pages.viewer import still_signed_in
from app.sluice import Sluice

BEAT = 15.0
"""Seconds of quiet after which a stream says that it stands; the page's script gives up on one after more than two."""
PACE = 0.1
"""Seconds between two messages at least: a busy deployment wakes the listeners more often than anybody can read."""

Look = Callable[[Session, Sluice], dict[str, Any] | None]
"""What the templates need, from one read transaction; None when there is no such thing."""


@dataclass(frozen=True)
class LivePage:
    """A page's template, and the live parts that it places."""

    template: str
    parts: tuple[str, ...]


async def show(
    request: Request,
    viewer: Caller,
    live: LivePage,
    look: Look,
    *,
    here: str | None = None,
    refusal: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """The whole page as it is now; 404 as a page when there is no such thing. `here`: the page's own address, where the
    request had another one; `refusal`: a sentence about what was not done."""
    sluice: Sluice = request.app.state.sluice

    def draw(session: Session) -> HTMLResponse:
        context = look(session, sluice)
        if context is None:
            return missing()
        context = {**context, "may_act": viewer.may("deploy")}
        parts = render.fragments(live.parts, context)
        address = here or request.url.path
        frame = {
            "here": address,
            "stream": f"{address.rstrip('/')}/stream",
            "part": lambda name: render.standing(name, parts[name]),
            "refusal": refusal,
        }
        return render.page(live.template, {**context, **frame}, status)

    return await sluice.store.read(draw)


def missing() -> HTMLResponse:
    """404 as a page."""
    words = {"title": "There is nothing here", "detail": "It may never have been, or the address is mistyped."}
    return render.page("problem.html", {**words, "stream": None}, 404)


async def follow(request: Request, viewer: Caller, live: LivePage, look: Look) -> AsyncIterator[ServerSentEvent]:
    """First every part, then at each wake-up those that differ from what this stream has sent. Ends when Sluice stops,
    when the session has ended (saying `signed-out`), or when the thing itself has (`gone`)."""
    sluice: Sluice = request.app.state.sluice
    sent: dict[str, str] = {}

    def draw(session: Session) -> dict[str, str] | Literal["signed-out", "gone"]:
        if not still_signed_in(session, sluice, request):
            return "signed-out"
        context = look(session, sluice)
        return "gone" if context is None else render.fragments(live.parts, {**context, "may_act": viewer.may("deploy")})

    with sluice.metrics.streams.track_inprogress():
        yield ServerSentEvent(event="hello", raw_data=render.fingerprint())
        while not sluice.stopping.is_set():
            news = sluice.listeners.next()
            parts = await sluice.store.read(draw)
            if isinstance(parts, str):
                yield ServerSentEvent(event=parts, raw_data="-")
                return
            if changed := {name: html for name, html in parts.items() if sent.get(name) != html}:
                yield ServerSentEvent(raw_data=render.arriving(changed))
                sent = parts
            await first_of(sluice.stopping, timeout=PACE)
            if not await first_of(news, sluice.stopping, timeout=BEAT):
                yield ServerSentEvent(event="beat", raw_data="-")


async def first_of(*events: asyncio.Event, timeout: float) -> bool:
    """Wait until one of them is set, at most `timeout` seconds. Was one?"""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for wait in waits:
            wait.cancel()
