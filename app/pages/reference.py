"""The API's reference at /docs, drawn from /openapi.json by Swagger UI; it is served from here, and asks no other site."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.pages import render

router = APIRouter()


@router.get("/docs")
def reference() -> HTMLResponse:
    """Read, and tried out with the session's or a pasted token."""
    return render.page("reference.html", {})
