"""The dashboard's static files, looked up by name so that no path reaches another file."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from app.pages.render import HEADERS, STATIC

router = APIRouter()
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FILES = {str(path.relative_to(STATIC)): path for path in STATIC.rglob("*") if path.suffix in _TYPES}


@router.get("/ui/static/{path:path}")
def static_file(path: str) -> FileResponse:
    """Return a static file that browsers cache for a year: its address contains its fingerprint."""
    file = _FILES.get(path)
    if file is None:
        raise HTTPException(404)
    return FileResponse(
        file, media_type=_TYPES[file.suffix], headers={**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    )
