"""Form that creates a service, reached from the overview."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.auth import Caller
from app.context import AppContext
from app.pages.dependencies import HOME, FormViewer, PageViewer
from app.pages.form_commands import FormCommand, parse_create_form
from app.pages.forms import Form, handle_post, show_form
from app.problems import Problem
from services.errors import FieldError
from services.store.tables import Service
from services.text_forms import SERVICE_NAME

router = APIRouter(prefix="/ui/new")
FORM_FIELDS = ("name", "image", "port", "replicas", "note", "fields")


@router.get("")
async def form(request: Request, viewer: PageViewer) -> Response:
    """Show the form, filled with the fields of the address (`?name=web&image=web:1`).

    Raises Problem (403) if the viewer may not create services.
    """
    viewer.require("write")
    return show_form(_form(request, viewer), {field: request.query_params.get(field, "") for field in FORM_FIELDS})


@router.post("")
async def create(request: Request, viewer: FormViewer) -> Response:
    return await handle_post(request, viewer, _form(request, viewer))


def _form(request: Request, viewer: Caller) -> Form:
    sluice: AppContext = request.app.state.sluice
    values = {"bound": viewer.principal.services, "default_route": sluice.settings.default_route}
    return Form("create", FORM_FIELDS, "/ui/new", HOME, partial(_parse, sluice, viewer), values)


async def _parse(sluice: AppContext, viewer: Caller, answers: Mapping[str, str]) -> FormCommand:
    """Return the command of the form. Raises Problem beside the name.

    The name is refused if it is invalid, outside the token's services or in use.
    """
    viewer.require("write")
    name = answers["name"].strip()
    if not re.fullmatch(SERVICE_NAME, name):
        raise _refused("invalid", "must be at most 40 of a-z, 0-9 and -, starting with a letter")
    if not viewer.principal.allows_service(name):
        raise _refused("insufficient_scope", f"your token may only create {', '.join(viewer.principal.services or ())}")
    service = await sluice.store.read(lambda session: session.get(Service, name))
    if service is not None and not service.removed:
        raise _refused("invalid", "a service with this name exists", exists=name)
    return parse_create_form(name, answers)


def _refused(code: str, why: str, **more: str) -> Problem:
    return Problem(code, f"name: {why}", [FieldError("name", why)], more=more)
