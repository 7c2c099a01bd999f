"""Live pages: page and stream render the same parts, and the stream sends the changed ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.sse import format_sse_event
from sqlmodel import Session

from app.api.sse import StreamFormat, stream_response
from app.auth import Caller
from app.context import AppContext
from app.live.live_views import Fragments, Rendering, VersionedCache
from app.pages import render

RENDER_SECONDS = 15.0
"""Interval after which an open page is rendered again without a change, unless its source names another."""
PAGE_STREAM = StreamFormat(
    opening=b"",
    heartbeat=format_sse_event(event="beat", data_str="-"),
    unauthenticated=format_sse_event(event="signed-out", data_str="-"),
    interrupted=b"",
    bounded=False,
    identify_seconds=3.0,
)
"""Format of a page's stream. The page's script reconnects after a silence of more than two heartbeats."""


@dataclass(frozen=True)
class LivePage:
    """A page's template and its live parts.

    `rows` names the part that is a list whose rows are parts too. The contexts of the rows are `rows` of the page's
    context, by name.
    """

    template: str
    parts: tuple[str, ...]
    rows: str = ""

    def render(self, context: Mapping[str, Any], cache: VersionedCache) -> Fragments:
        """Render the parts; an unchanged row is taken from `cache`."""
        rows = {
            name: cache.get((self.rows, name), row, partial(render.row, self.rows, row))
            for name, row in (context["rows"].items() if self.rows else ())
        }
        return Fragments(render.fragments(self.parts, {**context, "row_html": rows}), rows, self.rows)


@dataclass(frozen=True)
class PageSource:
    """The data of a page.

    `query` returns the template's values from one read transaction, or None if the object does not exist. Its value
    `about`, if present, is the service that the page can change.

    `version` returns a value that differs if the result of `query` may differ. After `interval` seconds the page is
    rendered although the version is the same.

    `load` fetches data of an open page that does not come from the store. The templates read it as `loaded`.
    """

    query: Callable[[Session, AppContext], dict[str, Any] | None]
    version: Callable[[AppContext], object]
    interval: float = RENDER_SECONDS
    load: Callable[[AppContext], Awaitable[Any]] | None = None


async def show(
    request: Request,
    viewer: Caller,
    page: LivePage,
    source: PageSource,
    *,
    here: str | None = None,
    error: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """Return the whole page as it is now; 404 as a page if the object does not exist.

    `here` is the page's own address if the request's address differs. `error` is a sentence about a refused action.
    """
    sluice: AppContext = request.app.state.sluice

    def render_page(session: Session) -> HTMLResponse:
        context = source.query(session, sluice)
        if context is None:
            return missing()
        context = {**context, **_may(viewer, context), "loaded": None}
        parts = page.render(context, sluice.live_views.cache).fixed
        address = here or request.url.path
        page_context = {
            "here": address,
            "stream": f"{address.rstrip('/')}/stream",
            "now": sluice.clock.now(),
            "part": lambda name, look="card": render.section(name, parts[name], look),
            "refusal": error,
        }
        return render.page(page.template, {**context, **page_context}, status)

    return await sluice.store.read(render_page)


def _may(viewer: Caller, context: Mapping[str, Any]) -> dict[str, bool]:
    """Tell which actions the page offers; a viewer without the right gets no button."""
    allowed = "about" not in context or viewer.principal.allows_service(context["about"])
    return {"may_act": allowed and viewer.may("deploy"), "may_write": allowed and viewer.may("write")}


def missing() -> HTMLResponse:
    """Return 404 as a page."""
    context = {"title": "Page not found", "detail": "Check the address."}
    return render.page("problem.html", {**context, "stream": None}, 404)


def stream(request: Request, viewer: Caller, page: LivePage, source: PageSource) -> StreamingResponse:
    """Stream every part first, then at each notification the parts that changed since the last message.

    The stream ends when Sluice stops, when the session ends (event `signed-out`) or when the object is gone (event
    `gone`). The messages are encoded once for all viewers of a page with the same rights.
    """
    sluice: AppContext = request.app.state.sluice
    key = (request.url.path, viewer.principal.scope, viewer.principal.services)

    async def load() -> Any:
        return await source.load(sluice) if source.load is not None else None

    def render_parts(session: Session, loaded: Any) -> Fragments | None:
        context = source.query(session, sluice)
        if context is None:
            return None
        return page.render({**context, **_may(viewer, context), "loaded": loaded}, sluice.live_views.cache)

    rendering = Rendering(lambda: source.version(sluice), load, render_parts, source.interval)

    async def messages() -> AsyncGenerator[bytes]:
        async with sluice.live_views.watch(key, rendering) as view:
            yield format_sse_event(event="hello", data_str=render.fingerprint())
            sent: Fragments | None = None
            while True:
                changed = view.next()
                parts = await view.fragments()
                if parts is None:
                    yield format_sse_event(event="gone", data_str="-")
                    return
                if message := view.messages.get("", (sent, parts), partial(_update, sent, parts)):
                    yield message
                    sent = parts
                await changed.wait()

    return stream_response(request, messages, PAGE_STREAM)


def _update(before: Fragments | None, now: Fragments) -> bytes:
    """Return the message that updates a viewer from `before` to `now`; empty if nothing changed."""
    changed = now.since(before)
    return format_sse_event(data_str=render.patch(changed)) if changed else b""
