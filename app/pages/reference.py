"""The API's reference at /docs, drawn from /openapi.json by Swagger UI; it is served from here, and asks no other site."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.auth import REFERENCE
from app.pages import render
from app.pages.dependencies import PageViewer

router = APIRouter()


@router.get(REFERENCE)
def reference(_viewer: PageViewer) -> HTMLResponse:
    """Read, and tried out with the session's or a pasted token."""
    return render.page("reference.html", {})
