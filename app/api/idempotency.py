"""Idempotency-Key of requests: claim and stored answer of a request that creates no deployment."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from app.api.request_body import read_bytes
from app.auth import Caller
from app.context import AppContext
from services.idempotency import IdempotencyClaim, find_used_key, store_used_key


async def claim(request: Request, caller: Caller, key: str | None, *, also: str = "") -> IdempotencyClaim | None:
    """Return the claim of a request's Idempotency-Key; None without a key.

    The fingerprint covers method, path and body, and the part of the query in `also`.
    """
    return claim_content(request, caller, key, await read_bytes(request), also=also) if key is not None else None


def claim_content(
    request: Request, caller: Caller, key: str | None, content: bytes, *, also: str = ""
) -> IdempotencyClaim | None:
    """Return the claim as `claim` does, for a request with the body `content`."""
    if key is None:
        return None
    text = f"{request.method} {request.url.path}{also}\n".encode(errors="replace") + content
    return IdempotencyClaim(caller.principal.token, key, hashlib.sha256(text).hexdigest())


@asynccontextmanager
async def earlier_answer(sluice: AppContext, claim: IdempotencyClaim | None) -> AsyncIterator[dict[str, Any] | None]:
    """Yield the stored answer to the same request; None for a new one, whose answer the block stores.

    Blocks with the same key run one after another. Raises RequestError 422 `idempotency_key_reused` if the key was used
    for another request.
    """
    if claim is None:
        yield None
        return
    async with sluice.idempotency_locks.hold((claim.token, claim.key)):
        row = await sluice.store.read(lambda session: find_used_key(session, claim))
        yield row.answer if row is not None else None


async def store_answer(sluice: AppContext, claim: IdempotencyClaim | None, answer: dict[str, Any]) -> None:
    if claim is not None:
        now = sluice.clock.now()
        await sluice.store.write(lambda session: store_used_key(session, claim, now, answer=answer))
