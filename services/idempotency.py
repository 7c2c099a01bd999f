"""Idempotency keys: a repeated request gets the result of the first one (docs/api.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, delete

from services.errors import FieldError, RequestError
from services.store.tables import IdempotencyKey

KEY_LIFETIME = 24 * 3600.0
"""Seconds for which a key is stored."""


@dataclass(frozen=True)
class IdempotencyClaim:
    """The Idempotency-Key of a request.

    `token` is the number of the caller's token. `fingerprint` is a hash of method, path and body.
    """

    token: int
    key: str
    fingerprint: str


def find_used_key(session: Session, claim: IdempotencyClaim | None) -> IdempotencyKey | None:
    """Return the row of a key that the same request used before, or None.

    Raises RequestError 422 `idempotency_key_reused` if another request used the key.
    """
    row = session.get(IdempotencyKey, (claim.key, claim.token)) if claim is not None else None
    if claim is None or row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        detail = "this Idempotency-Key was used for another request; use a new key, or send the same request"
        raise RequestError(
            422, "idempotency_key_reused", detail, [FieldError("Idempotency-Key", "was used for another request")]
        )
    return row


def store_used_key(
    session: Session,
    claim: IdempotencyClaim | None,
    now: float,
    *,
    deployment: int | None = None,
    answer: Mapping[str, Any] | None = None,
) -> None:
    """Store the result of a request for its key: the deployment that it created, or its answer."""
    if claim is None:
        return
    row = IdempotencyKey(key=claim.key, token=claim.token, fingerprint=claim.fingerprint, created_at=now)
    row.deployment, row.answer = deployment, dict(answer or {})
    session.merge(row)


def delete_expired_keys(session: Session, now: float) -> None:
    session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now - KEY_LIFETIME))
