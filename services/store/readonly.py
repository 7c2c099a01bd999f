"""Queries for rows that are only read: an entity for each row would cost more than reading the row."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar, cast

from sqlmodel import SQLModel, select
from sqlmodel.sql.expression import SelectOfScalar

T = TypeVar("T", bound=SQLModel)


def select_readonly(table: type[T], *names: str, without: Collection[str] = ()) -> SelectOfScalar[T]:
    """Return a query like `select(table)` that can be refined in the same way.

    Its rows have the same attributes but cannot be changed. `names` are the columns to read; without names, all columns but
    `without` are read.
    """
    columns = [
        column for column in cast(Any, table).__table__.columns if column.name in (names or {column.name} - {*without})
    ]
    return cast(SelectOfScalar[T], select(*columns))
