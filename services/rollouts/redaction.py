"""Secrets taken out of what is shown to those who may only read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"passw|secret|token|credential|auth|cookie|api_?key|private_?key|access_?key|(^|_)(key|pwd|pass)$", re.I
)
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@", re.I)


def redacted(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec without the values of `environment` and of a health check's `headers` whose names say that they are secret,
    and without the passwords in URLs; its profiles likewise."""
    shown = dict(spec)
    if isinstance(shown.get("environment"), dict):
        shown["environment"] = {name: _hide(name, value) for name, value in shown["environment"].items()}
    check = shown.get("healthcheck")
    if isinstance(check, dict) and isinstance(check.get("headers"), dict):
        shown["healthcheck"] = {**check, "headers": {name: _hide(name, value) for name, value in check["headers"].items()}}
    if isinstance(shown.get("profiles"), dict):
        layers = shown["profiles"].items()
        shown["profiles"] = {name: redacted(layer) if isinstance(layer, dict) else layer for name, layer in layers}
    return shown


def _hide(name: str, value: Any) -> Any:
    if value is None:
        return None
    if _SECRET_NAME.search(name):
        return HIDDEN
    return _IN_URL.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value
