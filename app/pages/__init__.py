"""The dashboard: HTML pages for browsers under /ui/."""

from __future__ import annotations

from fastapi import APIRouter

from app.pages import (
    audit,
    builds,
    change_service,
    create_service,
    deployments,
    files,
    history,
    logs,
    overview,
    reference,
    registry,
    revision_diff,
    services,
    sign_in,
    tokens,
)

MAX_FORM = 1024 * 1024
"""Bytes of a request to a page: without a maximum, a form's fields can be a gigabyte."""

pages = APIRouter(include_in_schema=False, max_body_size=MAX_FORM)
for _module in (
    files,
    sign_in,
    overview,
    create_service,
    services,
    logs,
    revision_diff,
    change_service,
    deployments,
    builds,
    history,
    audit,
    tokens,
    registry,
    reference,
):
    pages.include_router(_module.router)
