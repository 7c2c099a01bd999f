"""Copies of the database, consistent and complete, while Sluice runs or not."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from services.store.errors import StoreError


def copy(database: Path, to: Path, *, keep_existing: bool = False) -> Path:
    """Write a copy that only its owner can read to `to`, and return its path.

    Raises StoreError if the file exists already or cannot be written. With `keep_existing`, the next free name beside an
    existing file is used instead. No partial copy remains.
    """
    try:
        if not database.is_file():
            raise StoreError(f"database {database} not found")
        to = _free_name(to) if keep_existing else to
        if to.exists():
            raise StoreError(f"{to} already exists; a backup overwrites no file")
        _write(database, to)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the database could not be copied to {to}: {error}") from error
    return to


def _write(database: Path, to: Path) -> None:
    part = to.with_name(f".{to.name}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source:
            source.execute("VACUUM INTO ?", (str(part),))
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(to)
    except (OSError, sqlite3.Error):
        with suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)
        raise


def _free_name(path: Path) -> Path:
    tries = (path.with_name(f"{path.stem}{suffix}{path.suffix}") for suffix in ["", *(f"-{n}" for n in range(2, 10_000))])
    return next(name for name in tries if not name.exists())
