"""Idempotency-Key of requests that make no deployment.

Requests that make a deployment store their key in services/rollouts/requests/submit.py.
"""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, delete

from app.context import AppContext
from app.problems import Problem
from services.actor import IdempotencyClaim
from services.errors import FieldError
from services.store.tables import IdempotencyKey

KEPT = 24 * 3600.0
"""Seconds for which a key is kept."""


async def answered(sluice: AppContext, claim: IdempotencyClaim | None) -> dict[str, Any] | None:
    """Return the stored response to the same request; None for a new one.

    Raises Problem (422) if the key was used for another request.
    """
    if claim is None:
        return None
    row = await sluice.store.read(lambda session: session.get(IdempotencyKey, (claim.key, claim.token)))
    if row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        wrong = [FieldError("Idempotency-Key", "was used for another request")]
        raise Problem("idempotency_key_reused", "this Idempotency-Key was used for another request; take a new key", wrong)
    return row.answer


async def keep(sluice: AppContext, claim: IdempotencyClaim | None, answer: dict[str, Any]) -> None:
    """Store `answer` for the key."""
    if claim is None:
        return
    row = IdempotencyKey(
        key=claim.key, token=claim.token, fingerprint=claim.fingerprint, answer=answer, created_at=sluice.clock.now()
    )
    await sluice.store.write(lambda session: session.merge(row) and None)


def forget_old(session: Session, now: float) -> None:
    """Delete the expired keys."""
    session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now - KEPT))
