"""Suggestion of a service's name in an error about an unknown service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.client.http import Client
from app.cli.errors import CliError
from services.suggestions import did_you_mean

_MOST = 200


async def suggest_service(client: Client, error: CliError, arguments: Mapping[str, Any]) -> None:
    """Add the nearest name to an error about an unknown service, or about a new one that lacks an image."""
    name, document = arguments.get("service") or arguments.get("target"), error.document
    new = any(each.get("field") == "image" for each in document.get("errors") or [])
    if not isinstance(name, str) or not (new or document.get("code") == "unknown_service"):
        return
    try:
        known = [str(service["name"]) for service in await client.get_all("/services", most=_MOST)]
    except CliError:
        return
    if name in known:
        return
    if new:
        error.message += f'\nservice "{name}" does not exist yet'
    error.message += did_you_mean(name, known)
