"""Paging of long lists: newest first, a fixed number per page, with the filters in the address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from sqlmodel import Session, col

from app.api.params import decode_cursor, encode_cursor

PAGE_SIZE = 50
"""Rows of a page."""


def page_of(session: Session, query: Any, id: Any, cursor: str | None) -> tuple[Sequence[Any], str | None]:
    """Return rows of `query` after the cursor, and the cursor of older rows.

    Raises Problem (422) for an invalid cursor.
    """
    after = decode_cursor(cursor, int)
    if after is not None:
        query = query.where(col(id) < after[0])
    rows = session.exec(query.order_by(col(id).desc()).limit(PAGE_SIZE + 1)).all()
    more = encode_cursor(getattr(rows[PAGE_SIZE - 1], id.key)) if len(rows) > PAGE_SIZE else None
    return rows[:PAGE_SIZE], more


def address(request: Request, filters: dict[str, str], cursor: str | None) -> str | None:
    """Return the address of the older rows with the same filters; None if there are none."""
    if cursor is None:
        return None
    given = {name: value for name, value in filters.items() if value}
    return f"{request.url.path}?{urlencode({**given, 'cursor': cursor})}"


def one_of(value: str, known: Iterable[str]) -> str | None:
    """Return the error for a filter with a fixed set of values; None if the value is valid."""
    return None if not value or value in list(known) else f'"{value[:40]}" is not one of these'


def choices(known: Iterable[str], every: str) -> list[tuple[str, str]]:
    """Return the options of a filter with a fixed set of values; the first option filters nothing."""
    return [("", every), *((word, word.replace("_", " ")) for word in known)]
