"""Request bodies: JSON of any Content-Type, limited in size and depth, validated and documented."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from app.problems import Problem, invalid, unknown_field_message
from services.errors import FieldError, field_path
from services.rollouts.requests.spec_errors import described, humanize

M = TypeVar("M", bound=BaseModel)
MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 32


class Body(BaseModel):
    """Base of body models; unknown fields are refused, so a typo never deploys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


async def read_bytes(request: Request) -> bytes:
    """Return the raw body, kept for further calls.

    Raises Problem (413) if it exceeds MAX_BODY_BYTES bytes.
    """
    retained: bytes | None = getattr(request.state, "body", None)
    if retained is not None:
        return retained
    too_large = Problem("too_large", f"body is larger than {MAX_BODY_BYTES} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        raise too_large
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise too_large
    request.state.body = raw
    return raw


async def read_object(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object, {} for an empty body. Raises Problem (400 or 422) otherwise."""
    raw = await read_bytes(request)
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except RecursionError:
        raise invalid("body", f"nested more than {MAX_DEPTH} levels deep") from None
    except UnicodeDecodeError:
        raise Problem("bad_request", "body is not UTF-8") from None
    except ValueError as error:
        raise Problem("bad_request", f"body is not JSON: {error}"[:500]) from None
    check_depth(value)
    if not isinstance(value, dict):
        raise invalid("body", "must be a JSON object")
    return value


async def read(request: Request, model: type[M]) -> M:
    """Return the body as `model`.

    Raises Problem (422) that names each invalid field, and for an unknown field the nearest known one.
    """
    return check(model, await read_object(request))


def check(model: type[M], value: Mapping[str, Any]) -> M:
    """Return `value` as `model`. Raises Problem (422) if it is invalid."""
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        known = list(model.model_fields)
        errors = described(error, lambda each, suggest: _body_field_error(each, known if suggest else []))
        raise Problem("invalid", "; ".join(f"{one.field}: {one.message}" for one in errors)[:1000], errors) from None


def documented(schema: type[BaseModel] | str, *, required: bool = True, **examples: Any) -> dict[str, Any]:
    """Return the `openapi_extra` of a route with a body.

    `schema` is a model, or the name of a schema in app/api/openapi.py.
    """
    name = schema if isinstance(schema, str) else schema.__name__
    named_examples = {key: {"value": value} for key, value in examples.items()}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}, "examples": named_examples}}
    return {"requestBody": {"required": required, "content": content}}


def _body_field_error(error: Mapping[str, Any], known: list[str]) -> FieldError:
    field = field_path(error["loc"])
    if error["type"] == "extra_forbidden":
        return FieldError(field, unknown_field_message(field, known))
    return FieldError(field, humanize(error))


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise invalid(twice[:100].encode(errors="replace").decode(), "duplicate key")
    return value


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def check_depth(value: Any, field: str = "body", depth: int = MAX_DEPTH) -> None:
    """Raise Problem `invalid` of `field` for a value nested deeper than `depth`, or not UTF-8.

    Half a surrogate pair cannot be written as UTF-8.
    """
    if depth == 0:
        raise invalid(field, f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for name, part in value.items():
            check_depth(name, field, depth)
            check_depth(part, field, depth - 1)
    elif isinstance(value, list):
        for part in value:
            check_depth(part, field, depth - 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(field, "contains text that is not Unicode (an unpaired surrogate)") from None
