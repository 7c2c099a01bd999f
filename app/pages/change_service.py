"""Forms that change a service from its page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.auth import Caller
from app.authorization import check_deploy_scope
from app.context import AppContext
from app.pages.dependencies import FormViewer, PageViewer
from app.pages.form_commands import KINDS, FormCommand, parse_form
from app.pages.forms import Form, handle_post, show_form, show_plan
from app.pages.live_page import missing
from app.presenters.rollouts import present_service
from services.store.tables import Service

router = APIRouter(prefix="/ui/services/{name}")
FORM_FIELDS = {"deploy": ("image", "replicas", "note", "fields"), "scale": ("replicas",), "rollback": ("to_revision",)}
"""Fields of the form of each kind; the other kinds have none."""


@router.get("/{kind}")
async def form(request: Request, viewer: PageViewer, name: str, kind: str) -> Response:
    """Show the form of deploy or scale, or the plan of another kind.

    The address may give values of the fields (`?to_revision=3`).

    Raises Problem (403) if the viewer may not make the change, before any field is filled in.
    """
    service = await _service(request, name)
    if service is None or kind not in KINDS:
        return missing()
    viewer.require("write" if kind == "remove" else "deploy")
    viewer.require_service(service["name"])
    form = _form(request, viewer, service, kind)
    answers = {field: request.query_params.get(field, "") for field in form.fields}
    if kind in ("deploy", "scale"):
        answers["replicas"] = answers["replicas"] or (str(service["replicas"]) if kind == "scale" else "")
        return show_form(form, answers)
    return await show_plan(request, viewer, form, answers)


@router.post("/{kind}")
async def change(request: Request, viewer: FormViewer, name: str, kind: str) -> Response:
    service = await _service(request, name)
    if service is None or kind not in KINDS:
        return missing()
    return await handle_post(request, viewer, _form(request, viewer, service, kind))


def _form(request: Request, viewer: Caller, service: Mapping[str, Any], kind: str) -> Form:
    back = f"/ui/services/{service['name']}"
    parse = partial(_parse, request.app.state.sluice, viewer, service["name"], kind)
    return Form(kind, FORM_FIELDS.get(kind, ()), f"{back}/{kind}", back, parse, {"service": service})


async def _parse(sluice: AppContext, viewer: Caller, name: str, kind: str, answers: Mapping[str, str]) -> FormCommand:
    viewer.require("write" if kind == "remove" else "deploy")
    viewer.require_service(name)
    command = parse_form(kind, name, answers)
    viewer.require(command.scope)
    if command.deploy is not None:
        await check_deploy_scope(sluice, viewer, command.deploy)
    return command


async def _service(request: Request, name: str) -> dict[str, Any] | None:
    sluice: AppContext = request.app.state.sluice

    def read_row(session: Session) -> dict[str, Any] | None:
        row = session.get(Service, name)
        return present_service(session, row, sluice.presenter_context) if row is not None and not row.removed else None

    return await sluice.store.read(read_row)
