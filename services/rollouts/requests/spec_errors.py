"""Errors in a spec, field by field, in sentences that say how to correct them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from services.errors import FieldError, RequestError, field_path
from services.spec import ServiceSpec, SpecFields
from services.suggestions import MAX_SUGGESTIONS, did_you_mean
from services.text_forms import FORMS

_SENTENCES: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "unknown field",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text",
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "mapping_type"), "must be a mapping"),
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
}
"""Type of a Pydantic error → the sentence for it, with the error's context in braces."""
_SHOULD = re.compile(r"^(Input|String|List|Dictionary|Value) should ")
MAX_ERRORS = 200
"""Maximum number of wrong fields that the answer to one request names."""
BODY_FIELDS = ("service", "profile", "mode", "note", "expected_revision")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


_PARTS: Mapping[str, type[BaseModel]] = {
    name: part for name, field in ServiceSpec.model_fields.items() if (part := _model_in(field.annotation)) is not None
}
"""Field → the model of its value, or of the values in its list or mapping."""


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return Pydantic's errors as dotted fields with sentences."""
    return described(error, _field_error)


def unknown_field_errors(body: Mapping[str, Any]) -> list[FieldError]:
    """Return errors for unknown fields that Pydantic does not see or refuse.

    These are nulls of fields that the spec does not have, which a merge drops, and fields that only Sluice sets.
    """
    locations = islice(_unknown_fields(body, ServiceSpec), MAX_ERRORS)
    return [_unknown_field_error(each, suggest=number < MAX_SUGGESTIONS) for number, each in enumerate(locations)]


def described(error: ValidationError, describe: Callable[[Mapping[str, Any], bool], FieldError]) -> list[FieldError]:
    """Return the result of `describe` for each error.

    `describe` suggests a name for an unknown one only if its second argument is true. More than MAX_ERRORS errors become a
    single one: Pydantic itself needs half a second to list forty thousand.
    """
    if error.error_count() > MAX_ERRORS:
        return [FieldError("body", f"has {error.error_count()} errors; no more than {MAX_ERRORS} are named")]
    errors, unknown = [], 0
    for each in error.errors(include_url=False, include_input=False):
        unknown += each["type"] == "extra_forbidden"
        errors.append(describe(each, unknown <= MAX_SUGGESTIONS))
    return errors


def invalid(errors: Sequence[FieldError]) -> RequestError:
    """Return RequestError 422 `invalid_spec` for the errors."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return RequestError(422, "invalid_spec", f"{first.field}: {first.message}{more}"[:1000], list(errors))


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown field, with the nearest of the `known` names."""
    if name == "build":
        return "not supported here: build the image with POST /builds, then deploy it (`sluice deploy` does both)"
    return "unknown field" + did_you_mean(name, known)


def humanize(error: Mapping[str, Any]) -> str:
    """Return one of Pydantic's errors as a sentence that says what the value must be."""
    if error["type"] in _SENTENCES:
        return _SENTENCES[error["type"]].format_map(error.get("ctx") or {})
    return _SHOULD.sub("must ", str(error["msg"]).removeprefix("Value error, ")[:500])


def _field_error(error: Mapping[str, Any], suggest: bool) -> FieldError:
    if error["type"] == "extra_forbidden":
        return _unknown_field_error(error["loc"], suggest=suggest)
    field = field_path(error["loc"])
    if error["type"] == "string_pattern_mismatch":
        return FieldError(field, FORMS[error["ctx"]["pattern"]])
    message = humanize(error)
    if field == "body" and message.partition(" ")[0] in ServiceSpec.model_fields:
        field = message.partition(" ")[0]
    return FieldError(field, message)


def _unknown_field_error(location: Sequence[str | int], *, suggest: bool) -> FieldError:
    known = _known_at(location[:-1]) if suggest else ()
    return FieldError(field_path(location), unknown_field(str(location[-1])[:100], known))


def _known_at(location: Sequence[str | int]) -> list[str]:
    part = next((_PARTS[name] for name in reversed(location) if isinstance(name, str) and name in _PARTS), None)
    if part is None:
        return [*ServiceSpec.model_fields, *BODY_FIELDS]
    return [name for name, field in part.model_fields.items() if not field.exclude]


def _unknown_fields(fields: Mapping[str, Any], model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield the locations of unknown nulls and of fields that only Sluice sets, in `model` and its parts."""
    for name, value in fields.items():
        if name not in model.model_fields:
            if value is None:
                yield (name,)
        elif model.model_fields[name].exclude:
            yield (name,)
        elif name == "profiles" and isinstance(value, Mapping):
            for profile, layer in value.items():
                if isinstance(layer, Mapping):
                    yield from ((name, profile, *location) for location in _unknown_fields(layer, SpecFields))
        elif name in _PARTS and isinstance(value, Mapping):
            yield from ((name, *location) for location in _unknown_fields(value, _PARTS[name]))
