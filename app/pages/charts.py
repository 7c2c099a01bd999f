"""Requests and errors as pages show them beside their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlmodel import Session, col, func, select

from services.store.tables import TrafficSample


def newest(session: Session, step: int) -> int | None:
    """When the newest figures of that step begin."""
    return session.exec(select(func.max(TrafficSample.at)).where(col(TrafficSample.step) == step)).one()


@lru_cache(4096)
def spark(values: Sequence[float]) -> str:
    """The path of a line through the values, in a box of (len - 1) × 20, with room above; "" when all are 0."""
    top = max(values, default=0)
    if top <= 0:
        return ""
    return "M" + "L".join(f"{x} {19 - round(value / top * 17)}" for x, value in enumerate(values))
