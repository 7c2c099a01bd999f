"""Query parameters and headers that many routes share, and the check for unknown parameters."""

from __future__ import annotations

import base64
import binascii
import json
import math
import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import Header, Path, Query, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query as QueryParameter
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, StringConstraints

from app.problems import invalid, unknown_field_message
from services.units import MAX_SECONDS, parse_duration

MAX_REGISTRY_AUTH = 16 * 1024
"""Maximum characters of the header X-Registry-Auth."""
MAX_INSTANT = 1e11
"""Upper limit of an instant, in seconds since 1970."""


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        value = float(value) if value.replace(".", "", 1).isdecimal() and value.isascii() else parse_duration(value)
    if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= MAX_SECONDS):
        raise ValueError('must be a number of seconds or a duration such as "1m30s"')
    return float(value)


def _instant(value: Any) -> Any:
    """Return seconds since the epoch, from RFC 3339 with a zone, seconds, or a duration before now."""
    error = ValueError("must be a time such as 2026-11-24T20:15:00Z (with its zone), seconds since 1970, or a duration")
    text = str(value)
    try:
        if "T" in text.upper():
            at = datetime.fromisoformat(text)
            seconds = at.timestamp() if at.tzinfo is not None else math.nan
        elif text[-1:].isalpha():
            seconds = time.time() - parse_duration(text)
        else:
            seconds = float(text)
    except (ValueError, OverflowError):
        raise error from None
    if not 0 <= seconds < MAX_INSTANT:
        raise error
    return seconds


_SECONDS_SCHEMA = {"type": "string", "pattern": r"^\d{1,5}$", "examples": ["600"]}
_INSTANT_SCHEMA = {"type": "string", "format": "date-time"}
Wait = Annotated[
    Annotated[float, BeforeValidator(_seconds)] | None,
    Query(
        description='wait for the deployment to end, for at most this time (seconds, or "1m30s")',
        json_schema_extra=_SECONDS_SCHEMA,
    ),
]
DryRun = Annotated[bool, Query(description="answer 200 with the changes and steps, and change nothing")]
Since = Annotated[
    Annotated[float, BeforeValidator(_instant)] | None,
    Query(
        description="oldest time: RFC 3339, seconds since 1970, or a duration before now",
        json_schema_extra=_INSTANT_SCHEMA,
    ),
]
Limit = Annotated[int, Query(ge=1, le=200, description="maximum number of items")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the previous page")]
Number = Annotated[int, Path(ge=1, le=2**53)]
Name = Annotated[str, Path(max_length=200)]
IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255)] | None,
    Header(alias="Idempotency-Key", description="the same key and body return the same deployment for 24 hours"),
]
RegistryAuth = Annotated[
    Annotated[str, StringConstraints(max_length=MAX_REGISTRY_AUTH)] | None,
    Header(
        alias="X-Registry-Auth",
        description="Docker's header with registry credentials, for this pull only; never stored or logged",
    ),
]


async def strict_query(request: Request) -> None:
    """Raise Problem (422) for an unknown query parameter: a mistyped `wait` must not be ignored."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not request.query_params:
        return
    known = [field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, QueryParameter)]
    for name in request.query_params:
        if name not in known:
            raise invalid(name[:100], unknown_field_message(name, known).replace("a field", "a parameter"))


def registry_auth(header: str | None) -> str | None:
    """Return the credentials in the form that every engine reads.

    Raises Problem (422) unless the header is base64 of a JSON object, as Docker sends it. The error never contains the
    value.
    """
    if not header:
        return None
    try:
        decoded = json.loads(base64.b64decode(header.replace("-", "+").replace("_", "/") + "===", validate=False))
    except (ValueError, binascii.Error, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise invalid("X-Registry-Auth", 'must be base64 of a JSON object such as {"username": …, "password": …}')
    return base64.urlsafe_b64encode(json.dumps(decoded).encode()).decode()  # the only alphabet that every engine reads


def encode_cursor(*values: Any) -> str:
    """Return an opaque cursor for a place in a list."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: type) -> list[Any] | None:
    """Return the values of a cursor made by `encode_cursor`; `kinds` are their types: int, float or str.

    Raises Problem (422) for any other cursor.
    """
    if cursor is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        values = None
    complete = isinstance(values, list) and len(values) == len(kinds)
    if not complete or not all(_is_of_kind(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise invalid("cursor", "must be `next` of the previous page")
    return list(values)


def _is_of_kind(value: Any, kind: type) -> bool:
    """Tell whether the store accepts the value.

    JSON also allows true, NaN, half a surrogate pair, and numbers of any length.
    """
    if kind is str:
        return isinstance(value, str) and value.isprintable()
    if kind is float and type(value) is float:
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**53
