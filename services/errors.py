"""Errors of refused requests, and the fields that the errors concern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FieldError:
    field: str
    message: str


def field_path(location: Sequence[str | int], default: str = "body") -> str:
    """Return the dotted path of a field, such as `routes.0.host`; `default` for an empty location.

    `location` is Pydantic's. A part of it can be a name from the request, so each is cut to 100 characters.
    """
    return ".".join(str(part)[:100] for part in location) or default


@dataclass
class RequestError(Exception):
    """The error for a refused request: HTTP `status`, stable `code`, a sentence, and the wrong fields."""

    status: int
    code: str
    detail: str
    errors: list[FieldError] = field(default_factory=list)

    def __str__(self) -> str:
        return self.detail


@contextmanager
def prefix_fields(name: str) -> Iterator[None]:
    """Add the prefix `name` to the fields of a RequestError that is raised in the context."""
    try:
        yield
    except RequestError as refused:
        refused.errors = [FieldError(f"{name}.{error.field}", error.message) for error in refused.errors]
        raise
