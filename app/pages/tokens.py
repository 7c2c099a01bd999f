"""The tokens page: the viewer's own token, and for admins all tokens with a form to create and revoke."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlmodel import Session

from app.api.request_body import check
from app.api.tokens import TokenBody, end_of, token_view
from app.audit import note_refusal
from app.auth import Caller
from app.context import AppContext
from app.pages import render
from app.pages.dependencies import FormViewer, PageViewer
from app.pages.live_page import missing
from app.pages.queries import valid_tokens
from app.problems import CODES, Problem, as_problem
from services.auth.tokens import SCOPES
from services.errors import RequestError
from services.store.tables import Token

router = APIRouter(prefix="/ui/tokens")
LIFETIMES = [("", "never"), ("24h", "in 1 day"), ("168h", "in 7 days"), ("720h", "in 30 days"), ("2160h", "in 90 days"),
             ("8760h", "in 1 year")]  # fmt: skip
EMPTY = {"name": "", "scope": "deploy", "services": "", "expires_in": "2160h"}


@router.get("")
async def tokens(request: Request, viewer: PageViewer) -> HTMLResponse:
    return await _page(request, viewer)


@router.post("")
async def create(request: Request, viewer: FormViewer) -> HTMLResponse:
    """Create a token and show it this once.

    An error is shown beside its field, and the typed values are kept.
    """
    given = await request.form(max_files=0, max_fields=10)
    answers = {name: str(given.get(name, "")).strip() for name in EMPTY}
    sluice: AppContext = request.app.state.sluice
    try:
        viewer.require("admin")
        body = check(TokenBody, _fields(answers))
        row, secret = await sluice.auth.create(body.name, body.scope, body.grant, end_of(sluice, body), viewer.actor)
    except Problem as problem:
        return await _refused(request, viewer, problem, answers)
    sluice.notifier.notify()
    return await _page(request, viewer, made={"name": row.name, "secret": secret}, status=201)


@router.post("/{id}/revoke")
async def revoke(request: Request, viewer: FormViewer, id: str) -> Response:
    """Revoke a token and its sessions immediately; the token may be the viewer's own."""
    if not (id.isascii() and id.isdecimal() and len(id) < 16):
        return missing()
    sluice: AppContext = request.app.state.sluice
    try:
        viewer.require("admin")
        await sluice.auth.revoke(int(id), viewer.actor)
    except (Problem, RequestError) as error:
        return await _refused(request, viewer, as_problem(error), EMPTY)
    sluice.notifier.notify()
    return RedirectResponse("/ui/tokens", 303)


def _fields(answers: Mapping[str, str]) -> dict[str, Any]:
    """Return the answers as the API's fields, without the empty ones.

    Text without any name (",") is kept, so that it is refused: left out, it would make a token that is not bound.
    """
    services = [name.strip() for name in answers["services"].split(",") if name.strip()]
    if answers["services"] and not services:
        services = [answers["services"]]
    said = {"services": services, "expires_in": answers["expires_in"]}
    return {"name": answers["name"], "scope": answers["scope"], **{name: value for name, value in said.items() if value}}


async def _refused(request: Request, viewer: Caller, problem: Problem, answers: Mapping[str, str]) -> HTMLResponse:
    status = problem.status or CODES[problem.code][0]
    await note_refusal(request, status, problem.code, problem.detail)
    errors = {wrong.field.partition(".")[0]: wrong.message for wrong in problem.errors}
    error = problem.detail if not errors.keys() & EMPTY.keys() else None
    return await _page(request, viewer, answers=answers, errors=errors, error=error, status=status)


async def _page(
    request: Request,
    viewer: Caller,
    *,
    answers: Mapping[str, str] = EMPTY,
    errors: Mapping[str, str] | None = None,
    error: str | None = None,
    made: Mapping[str, str] | None = None,
    status: int = 200,
) -> HTMLResponse:
    sluice: AppContext = request.app.state.sluice

    def read_rows(session: Session) -> dict[str, Any]:
        own = session.get_one(Token, viewer.principal.token)
        rows = valid_tokens(session) if viewer.may("admin") else []
        return {
            "own": token_view(sluice, own),
            "tokens": [token_view(sluice, row) for row in rows],
            "sessions": sluice.auth.sessions_in(session),
        }

    context = {
        **await sluice.store.read(read_rows), "now": sluice.clock.now(), "admin": viewer.may("admin"), "answers": answers,
        "errors": errors or {}, "refusal": error, "made": made, "scopes": [(scope, scope) for scope in SCOPES],
        "lifetimes": LIFETIMES, "stream": None,
    }  # fmt: skip
    return render.page("tokens.html", context, status)
