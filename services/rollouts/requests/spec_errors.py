"""Errors in a spec, field by field, in sentences that say how to correct them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from services.errors import FieldError, RequestError
from services.nearest import MAX_SUGGESTIONS, suggestion
from services.spec import Healthcheck, Logging, Resources, Route, ServiceSpec, SpecFields, VolumeMount

_PARTS: Mapping[str, type] = {
    "healthcheck": Healthcheck,
    "routes": Route,
    "resources": Resources,
    "volumes": VolumeMount,
    "logging": Logging,
    "profiles": SpecFields,
}
_FORMS: Mapping[str, str] = {
    "image": 'must be an image reference such as "web:1.5" or "registry.example/web@sha256:…"',
    "path": 'must begin with "/" and have no blanks or control characters',
    "path_prefix": 'must begin with "/" and have no blanks, control characters or query',
    "host": 'must be a host name such as "shop.example.com"',
    "working_dir": "must be an absolute path",
    "user": 'must be a name or number, or "user:group"',
    "stop_signal": 'must be a signal such as "SIGTERM"',
    "source": "must be a volume's name or an absolute path, of letters, digits, '_', '.', '-' and '/'",
    "target": "must be an absolute path in the container",
    "links": "must be names of services",
    "networks": "must be names of networks that the engine has",
}
_SHOULD = re.compile(r"^(Input|String|List|Dictionary|Value) should ")
MAX_ERRORS = 200
"""Maximum number of wrong fields that the answer to one request names."""
BODY_FIELDS = ("service", "profile", "mode", "note", "expected_revision")


def field_errors(error: ValidationError, under: str = "") -> list[FieldError]:
    """Return Pydantic's errors as dotted fields with sentences. `under` is the prefix of every field."""
    return described(error, lambda found, suggest: _field_error(found, under, suggest=suggest))


def described(error: ValidationError, describe: Callable[[Mapping[str, Any], bool], FieldError]) -> list[FieldError]:
    """Return the result of `describe` for each error.

    `describe` suggests a name for an unknown one only if its second argument is true. More than MAX_ERRORS errors become a
    single one: Pydantic itself needs half a second to list forty thousand.
    """
    if error.error_count() > MAX_ERRORS:
        return [FieldError("body", f"has {error.error_count()} errors; no more than {MAX_ERRORS} are named")]
    errors, unknown = [], 0
    for found in error.errors(include_url=False, include_input=False):
        unknown += found["type"] == "extra_forbidden"
        errors.append(describe(found, unknown <= MAX_SUGGESTIONS))
    return errors


def invalid(errors: Sequence[FieldError]) -> RequestError:
    """Return RequestError 422 `invalid_spec` for the errors."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return RequestError(422, "invalid_spec", f"{first.field}: {first.message}{more}"[:1000], list(errors))


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown field, with the nearest of the `known` names."""
    if name == "build":
        return "is not built here: POST /builds takes the context, and gives the image to deploy (`sluice deploy` does both)"
    return "is not a field that Sluice knows" + suggestion(name, known)


def humanize(found: Mapping[str, Any]) -> str:
    """Return one of Pydantic's errors as a sentence that says what the value must be."""
    if found["type"] == "missing":
        return "is required"
    return _SHOULD.sub("must ", str(found["msg"]).removeprefix("Value error, ")[:500])


def _field_error(found: Mapping[str, Any], under: str, *, suggest: bool) -> FieldError:
    path = [str(part)[:100] for part in found["loc"]]
    field = ".".join([under, *path] if under else path) or "body"
    if found["type"] == "extra_forbidden":
        return FieldError(field, unknown_field(path[-1], _known_at(path[:-1]) if suggest else ()))
    if found["type"] == "string_pattern_mismatch":
        named = next((part for part in reversed(path) if part in _FORMS), "")
        return FieldError(field, _FORMS.get(named, "has characters that are not allowed here"))
    message = humanize(found)
    if field == "body" and message.partition(" ")[0] in ServiceSpec.model_fields:
        field = message.partition(" ")[0]
    return FieldError(field, message)


def _known_at(path: Sequence[str]) -> list[str]:
    part = next((name for name in reversed(path) if name in _PARTS), None)
    if part is None:
        return [*ServiceSpec.model_fields, *BODY_FIELDS]
    fields: Mapping[str, Any] = getattr(_PARTS[part], "model_fields", {})
    return list(fields)
