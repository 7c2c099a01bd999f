"""Rendering: Jinja2 with autoescape, static files with fingerprints, and the headers of every page."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

STATIC = Path(__file__).resolve().parent.parent / "static"
TEMPLATES = Path(__file__).resolve().parent.parent.parent / "templates"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_TONES = {
    "ok": ("succeeded", "serving", "current", "healthy", "UP"),
    "busy": (
        "STARTING",
        "OUT_OF_SERVICE",
        "pending",
        "progressing",
        "rolling_back",
        "creating",
        "starting",
        "ready",
        "draining",
        "stopping",
        "deploying",
        "building",
    ),
    "warn": ("paused", "rolled_back", "aborted"),
    "bad": ("failed", "rollback_failed", "down", "unhealthy", "crash_looping", "deployment_failed", "DOWN"),
}


def page(template: str, context: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a whole page."""
    return HTMLResponse(_environment().get_template(template).render(context), status, HEADERS)


def fragments(names: tuple[str, ...], context: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTML of each live part by name, trimmed: the style sheet tests for an empty part."""
    return {name: _environment().get_template(f"fragments/{name}.html").render(context).strip() for name in names}


def row(name: str, context: Mapping[str, Any]) -> str:
    """Return the HTML of one row of a live list, rendered with its own context only."""
    return _environment().get_template(f"fragments/{name}_row.html").render(context).strip()


def section(name: str, html: str, css_class: str = "card") -> Markup:
    """Return a live part as the page first shows it: a card, or `bare`. `html` comes from `fragments`."""
    return Markup(f'<section class="{css_class}" id="part-{name}">{html}</section>')  # noqa: S704 - escaped by the template


def section_row(name: str, html: str) -> Markup:
    """Return a row of a live list for its place in the list. `html` comes from `row`."""
    return Markup(f'<li id="part-{name}">{html}</li>')  # noqa: S704 - escaped by the template


def patch(parts: Mapping[str, str]) -> str:
    """Return live parts as one message of the stream; each replaces the content that `section` placed."""
    return "\n".join(
        f'<hx-partial hx-target="#part-{name}" hx-swap="innerMorph">{html}</hx-partial>' for name, html in parts.items()
    )


@cache
def asset(path: str) -> str:
    """Return the address of a file in app/static, which changes with the file."""
    digest = hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:12]
    return f"/ui/static/{path}?v={digest}"


@cache
def fingerprint() -> str:
    """Return a digest of templates and static files: a page of an older Sluice must be reloaded."""
    digest = hashlib.sha256()
    for root in (STATIC, TEMPLATES):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def tone(status: str) -> str:
    """Return the colour class of a status."""
    return next((tone for tone, statuses in _TONES.items() if status in statuses), "idle")


def brief(text: str) -> str:
    """Return `text` with digests shortened to their beginnings, which are enough to distinguish them."""
    return _DIGEST.sub(r"\1…", text)


def plain(value: Any) -> str:
    """Return a value of a spec for people: text as it is, anything else as JSON."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, auto_reload=False
    )
    environment.globals.update(asset=asset, tone=tone, section_row=section_row, version=fingerprint())
    environment.filters.update(plain=plain, brief=brief)
    return environment
