"""Log pages of an instance or of a service; the page's script follows the API's stream."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from app.api.logs import sources_of
from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer
from app.pages.live_page import missing
from services.engine.port import EngineError
from services.instance_logs import Line, LogSource, read, seconds_of, source_of
from services.store.tables import Instance, Service

router = APIRouter()
TAILS = ("100", "500", "2000")
COLOUR_COUNT = 8
"""Number of colours for instances; the page's script continues the numbering of the page."""


@router.get("/ui/services/{name}/logs")
async def service_logs(request: Request, _viewer: PageViewer, name: str, q: str = "", tail: str = "500") -> HTMLResponse:
    """Show the logs of all instances of a service, ordered by time."""

    def read_row(session: Session) -> Sequence[LogSource] | None:
        return sources_of(session, name) if session.get(Service, name) is not None else None

    sources = await request.app.state.sluice.store.read(read_row)
    if sources is None:
        return missing()
    where = {"service": name, "instance": None, "api": f"/services/{quote(name)}/logs"}
    return await _page(request, sources, where, q, tail)


@router.get("/ui/instances/{id}/logs")
async def instance_logs(request: Request, _viewer: PageViewer, id: str, q: str = "", tail: str = "500") -> HTMLResponse:
    """Show the log of an instance; of a removed instance, the log tail kept at its failure."""

    def read_row(session: Session) -> tuple[LogSource, str, str | None, bool] | None:
        row = session.get(Instance, id)
        return (source_of(session, row), row.service, row.log_tail, row.stopped_at is not None) if row is not None else None

    found = await request.app.state.sluice.store.read(read_row)
    if found is None:
        return missing()
    source, service, retained, gone = found
    where = {"service": service, "instance": id, "api": f"/instances/{quote(id)}/logs"}
    return await _page(request, [source], where, q, tail, gone=gone, retained=retained)


async def _page(
    request: Request, sources: Sequence[LogSource], where: dict[str, Any], q: str, tail: str, *, gone: bool = False,
    retained: str | None = None,
) -> HTMLResponse:  # fmt: skip
    """Show the lines that contain `q`. The page's script continues after the last line."""
    sluice: AppContext = request.app.state.sluice
    errors = {} if tail in TAILS else {"tail": f"must be one of {', '.join(TAILS)}"}
    lines, trouble = [], None
    began = sluice.clock.now()
    if gone:
        lines = [Line(where["instance"], "", text.rstrip("\r\n")) for text in StringIO(retained or "")]
    elif not errors:
        try:
            lines = await read(sluice.engine, sources, tail=int(tail), since=None)
        except EngineError as error:
            trouble = str(error)
    colours: dict[str, int] = {}
    for name in [*(source.instance for source in sources), *(line.instance for line in lines)]:
        colours.setdefault(name, len(colours) % COLOUR_COUNT)
    context = {
        **where, "lines": [line for line in lines if q.lower() in line.text.lower()], "colours": colours, "q": q,
        "tail": tail, "tails": [(tail, f"{tail} lines each") for tail in TAILS], "errors": errors, "trouble": trouble,
        "gone": gone, "since": seconds_of(lines[-1].at) if lines and not gone else began, "here": request.url.path,
        "stream": None,
    }  # fmt: skip
    return render.page("logs.html", context, 422 if errors else 200)
