"""Errors that a request is refused with, and the fields that they concern."""

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
    """A request that is refused: HTTP `status`, stable `code`, a sentence, and the fields that are wrong."""

    status: int
    code: str
    detail: str
    errors: list[FieldError] = field(default_factory=list)

    def __str__(self) -> str:
        return self.detail


@contextmanager
def prefix_fields(name: str) -> Iterator[None]:
    """The fields of a RequestError that is raised in it stand below `name`."""
    try:
        yield
    except RequestError as refusal:
        refusal.errors = [FieldError(f"{name}.{error.field}", error.message) for error in refusal.errors]
        raise
