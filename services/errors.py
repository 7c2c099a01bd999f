"""Errors of refused requests, and the fields that the errors concern."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FieldError:
    field: str
    message: str


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
    except RequestError as refusal:
        refusal.errors = [FieldError(f"{name}.{error.field}", error.message) for error in refusal.errors]
        raise
