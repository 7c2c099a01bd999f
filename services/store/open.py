"""Opening of the data directory.

Only one process opens it at a time. The schema is current then, and the process has a fencing number.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from services.store.database import Store
from services.store.errors import StoreError
from services.store.migrate import migrate
from services.store.tables import Meta

DATABASE = "sluice.db"
BACKUPS = "backups"
MIN_FREE_BYTES = 16 * 1024**2
"""Bytes that must be free to start: with less, a deployment would stop halfway."""


def open_store(data: Path) -> Store:
    """Lock the data directory, migrate the database, and take the next fencing number.

    Raises StoreError if any of these fails; then nothing is half-written. The lock is released by `Store.close()` or by the
    end of the process.
    """
    lock = _lock(data)
    try:
        _refuse_when_full(data)
        path = data / DATABASE
        migrate(path, data / BACKUPS)
        path.chmod(0o600)
        store = Store(path)
        try:
            with store.write_session() as session:
                store.run = _next_run(session)
        except BaseException:
            store.close()
            raise
    except DBAPIError as error:
        os.close(lock)
        raise StoreError(f"the database {data / DATABASE} cannot be written: {error.orig}") from error
    except OSError as error:
        os.close(lock)
        raise StoreError(f"the data directory {data} cannot be used: {error}") from error
    except BaseException:
        os.close(lock)
        raise
    store.on_close(lambda: os.close(lock))
    return store


def _lock(data: Path) -> int:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(data / "sluice.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"the data directory {data} cannot be written: {error.strerror}; set SLUICE_DATA to a writable directory"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        who = f" (process {holder})" if holder.isdecimal() else ""
        raise StoreError(
            f"another Sluice{who} runs on the data directory {data}; stop it first, or choose another SLUICE_DATA"
        ) from error
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(lock)
        raise StoreError(f"the data directory {data} cannot be written: {error.strerror}; free disk space") from error
    return lock


def _refuse_when_full(data: Path) -> None:
    database = data / DATABASE
    needed = MIN_FREE_BYTES + (database.stat().st_size if database.exists() else 0)
    free = shutil.disk_usage(data).free
    if free < needed:
        raise StoreError(
            f"the disk of the data directory {data} is full: {free // 1024**2} MB free, {needed // 1024**2} MB "
            "needed; free disk space, or set SLUICE_DATA to another disk"
        )


def _next_run(session: Session) -> int:
    row = session.get(Meta, "run") or Meta(key="run", value="0")
    row.value = str(int(row.value) + 1)
    session.add(row)
    return int(row.value)
