"""Rows that are only looked at: an entity made of each would cost more than to read it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar, cast

from sqlmodel import SQLModel, select
from sqlmodel.sql.expression import SelectOfScalar

T = TypeVar("T", bound=SQLModel)


def select_readonly(table: type[T], *names: str, without: Collection[str] = ()) -> SelectOfScalar[T]:
    """As `select(table)`, to be refined in the same way; what it finds has the same attributes, but cannot be changed.
    `names`: only these columns; none is all but `without`."""
    columns = [
        column for column in cast(Any, table).__table__.columns if column.name in (names or {column.name} - {*without})
    ]
    return cast(SelectOfScalar[T], select(*columns))
