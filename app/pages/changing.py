"""Changing a service from its page: a form, then the plan that its answers come to, and only then the deed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlmodel import Session

from app.api.deployments import allow
from app.audit import note_refusal
from app.auth import Caller
from app.pages import render
from app.pages.live import missing
from app.pages.viewer import FormViewer, PageViewer
from app.pages.wishes import KINDS, Wish, wish_of
from app.problems import CODES, Problem, as_problem
from app.sluice import Sluice
from services.engine.port import EngineError
from services.rollouts.asking import Call
from services.rollouts.refusal import Refusal
from services.rollouts.views import service_view
from services.store.tables import Service

router = APIRouter(prefix="/ui/services/{name}")
ASKS = {"deploy": ("image", "replicas", "note", "fields"), "scale": ("replicas",), "rollback": ("to_revision",)}
"""What each kind's form asks for; the others have nothing to ask."""


@router.get("/{kind}")
async def form(request: Request, viewer: PageViewer, name: str, kind: str) -> Response:
    """An empty form; the plan at once where there is nothing to ask, or the address says it (`?to_revision=3`). 403 for who
    may not do it: nobody is to fill in what is refused afterwards."""
    service = await _service(request, name)
    if service is None or kind not in KINDS:
        return missing()
    viewer.require("write" if kind == "remove" else "deploy")
    viewer.require_service(service["name"])
    answers = {field: request.query_params.get(field, "") for field in ASKS.get(kind, ())}
    if kind in ("deploy", "scale"):
        answers["replicas"] = answers["replicas"] or (str(service["replicas"]) if kind == "scale" else "")
        return _form(service, kind, answers)
    return await _planned(request, viewer, service, kind, answers)


@router.post("/{kind}")
async def change(request: Request, viewer: FormViewer, name: str, kind: str) -> Response:
    """`step` says which: `plan` shows what would be done, `change` the form again, `do` does it and shows the deployment."""
    service = await _service(request, name)
    if service is None or kind not in KINDS:
        return missing()
    given = await request.form(max_files=0, max_fields=20)
    answers = {field: str(given.get(field, "")) for field in ASKS.get(kind, ())}
    step = given.get("step")
    if step == "change":
        return _form(service, kind, answers)
    if step != "do":
        return await _planned(request, viewer, service, kind, answers)
    try:
        wish = await _allowed(request, viewer, service["name"], kind, answers)
        id = await wish.ask(request.app.state.sluice.requests, Call(viewer.actor))
    except (Problem, Refusal, EngineError) as error:
        problem = as_problem(error)
        await note_refusal(request, problem.status or CODES[problem.code][0], problem.code, problem.detail)
        return _form(service, kind, answers, problem)
    return RedirectResponse(f"/ui/deployments/{id}", 303)


async def _planned(
    request: Request, viewer: Caller, service: dict[str, Any], kind: str, answers: Mapping[str, str]
) -> HTMLResponse:
    try:
        wish = await _allowed(request, viewer, service["name"], kind, answers)
        plan = await wish.ask(request.app.state.sluice.previews, Call(viewer.actor))
    except (Problem, Refusal, EngineError) as error:
        return _form(service, kind, answers, as_problem(error))
    words = {
        "service": service, "kind": kind, "answers": answers, "plan": plan, "asks": bool(ASKS.get(kind)),
        "command": wish.command, "curl": wish.curl(str(request.base_url)), "stream": None,
    }  # fmt: skip
    return render.page("plan.html", words)


async def _allowed(request: Request, viewer: Caller, name: str, kind: str, answers: Mapping[str, str]) -> Wish:
    wish = wish_of(kind, name, answers)
    viewer.require(wish.scope)
    viewer.require_service(name)
    if wish.deploy is not None:
        await allow(request.app.state.sluice, viewer, wish.deploy)
    return wish


def _form(service: dict[str, Any], kind: str, answers: Mapping[str, str], problem: Problem | None = None) -> HTMLResponse:
    """With what is wrong beside its field; what concerns none of them above."""
    asked = ASKS.get(kind, ())
    errors: dict[str, str] = {}
    for wrong in problem.errors if problem is not None else ():
        field = wrong.field if wrong.field in asked else "fields"
        message = wrong.message if field == wrong.field else f"{wrong.field}: {wrong.message}"
        errors[field] = f"{errors[field]}; {message}" if field in errors else message
    refusal = problem.detail if problem is not None and not errors.keys() & set(asked) else None
    status = (problem.status or CODES[problem.code][0]) if problem is not None else 200
    words = {"service": service, "kind": kind, "answers": answers, "errors": errors, "refusal": refusal, "stream": None}
    return render.page("change.html", {**words, "asked": asked}, status)


async def _service(request: Request, name: str) -> dict[str, Any] | None:
    sluice: Sluice = request.app.state.sluice

    def look(session: Session) -> dict[str, Any] | None:
        row = session.get(Service, name)
        return service_view(session, row, sluice.frame) if row is not None and not row.removed else None

    return await sluice.store.read(look)
