"""Who asks, and what they are told when it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from services.grant import Grant


@dataclass(frozen=True)
class Actor:
    """The author of a request, for history and audit, and the limits of the author's token.

    `kind` is token, session, system or anonymous; `remote` the client's address; `token` the number of the token that was
    shown or signed in with; `grant` is None unless that token is bound to services.
    """

    kind: str
    name: str
    remote: str | None = None
    token: int | None = None
    grant: Grant | None = None

    def columns(self) -> dict[str, Any]:
        """As an event keeps it."""
        return {"actor_kind": self.kind, "actor_name": self.name, "actor_token": self.token, "remote": self.remote}


SYSTEM = Actor("system", "sluice")


@dataclass(frozen=True)
class Claim:
    """An Idempotency-Key to be taken in the transaction that makes the deployment. `fingerprint`: of method, path, body."""

    token: int
    key: str
    fingerprint: str


@dataclass(frozen=True)
class FieldError:
    field: str
    message: str


@dataclass
class Refusal(Exception):
    """A request that is refused: HTTP `status`, stable `code`, a sentence, and the fields that are wrong."""

    status: int
    code: str
    detail: str
    errors: list[FieldError] = field(default_factory=list)

    def __str__(self) -> str:
        return self.detail


@contextmanager
def below(name: str) -> Iterator[None]:
    """The fields of a Refusal that is raised in it stand below `name`."""
    try:
        yield
    except Refusal as refusal:
        refusal.errors = [FieldError(f"{name}.{error.field}", error.message) for error in refusal.errors]
        raise
