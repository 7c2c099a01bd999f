"""Idempotency-Key for the calls that make no deployment; those that do take theirs in
services/rollouts/requests/submit.py."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, delete

from app.context import AppContext
from app.problems import Problem
from services.caller import IdempotencyClaim
from services.errors import FieldError
from services.store.tables import IdempotencyKey

KEPT = 24 * 3600.0
"""Seconds that a key is remembered."""


async def answered(sluice: AppContext, claim: IdempotencyClaim | None) -> dict[str, Any] | None:
    """What the same call was answered before; None for a new one. Problem 422 when the key was used for another call."""
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
    """Remember `answer` for the key."""
    if claim is None:
        return
    row = IdempotencyKey(
        key=claim.key, token=claim.token, fingerprint=claim.fingerprint, answer=answer, created_at=sluice.clock.now()
    )
    await sluice.store.write(lambda session: session.merge(row) and None)


def forget_old(session: Session, now: float) -> None:
    """Forget the keys whose time is over."""
    session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now - KEPT))
