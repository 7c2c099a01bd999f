"""Long lists on pages: newest first, so many at a time, with filters in the address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from sqlmodel import Session, col

from app.api.params import cursor_of, place

AT_ONCE = 50


def newest(session: Session, query: Any, id: Any, cursor: str | None) -> tuple[Sequence[Any], str | None]:
    """Rows of `query` from the cursor on, and the cursor of what is older. Problem 422 for a cursor that is none."""
    after = place(cursor, int)
    if after is not None:
        query = query.where(col(id) < after[0])
    rows = session.exec(query.order_by(col(id).desc()).limit(AT_ONCE + 1)).all()
    more = cursor_of(getattr(rows[AT_ONCE - 1], id.key)) if len(rows) > AT_ONCE else None
    return rows[:AT_ONCE], more


def address(request: Request, filters: dict[str, str], cursor: str | None) -> str | None:
    """The page of what is older, with the same filters; None when there is nothing."""
    if cursor is None:
        return None
    given = {name: value for name, value in filters.items() if value}
    return f"{request.url.path}?{urlencode({**given, 'cursor': cursor})}"


def one_of(value: str, known: Iterable[str]) -> str | None:
    """What is wrong with a filter that takes one of a few words."""
    return None if not value or value in list(known) else f'"{value[:40]}" is none of these'


def choices(known: Iterable[str], every: str) -> list[tuple[str, str]]:
    """The options of such a filter; the first one filters nothing."""
    return [("", every), *((word, word.replace("_", " ")) for word in known)]
