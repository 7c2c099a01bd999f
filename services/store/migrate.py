"""Migration of a database file to this Sluice's schema revision.

The file is copied first and migrated completely or not at all. An unknown revision is refused.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import migrations
from services.store.backup import copy
from services.store.errors import StoreError

MIGRATIONS = Path(migrations.__file__).parent


def migrate(path: Path, backups: Path) -> None:
    """Upgrade the database at `path`, or create it if it does not exist.

    A database with content is copied into `backups` before it is changed. Raises StoreError and leaves the database
    unchanged if the upgrade is not possible.
    """
    known = schemas()
    head, present = max(known), _revision(path)
    if present == head:
        return
    if present is not None:
        _refuse_unknown(present, known, path)
        copy(path, backups / f"before-{head}-from-{present}.db", keep_existing=True)
    # Most starts have nothing to migrate: importing Alembic would take a tenth of their time and memory.
    from services.store.upgrade import upgrade

    upgrade(path, MIGRATIONS)


def schemas() -> set[str]:
    """Return the schema revisions that this Sluice knows, from the names of their files."""
    return {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py")}


def _revision(path: Path) -> str | None:
    """Return the schema revision of a database, or None if the database is empty.

    The whole file is checked too. Raises StoreError if the file is corrupt or is not a database of Sluice's.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(path)) as database:
            wrong = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = list(database.execute("SELECT version_num FROM alembic_version")) if "alembic_version" in names else []
    except sqlite3.OperationalError as error:
        raise StoreError(f"the database {path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(_corrupt(path, str(error))) from error
    if wrong != "ok":
        raise StoreError(_corrupt(path, wrong.strip().splitlines()[-1]))
    if found:
        return str(found[0][0])
    if names - {"alembic_version", "sqlite_sequence"}:
        raise StoreError(f"{path} is a database, but not Sluice's; correct SLUICE_DATA, or remove the file")
    return None


def _corrupt(path: Path, why: str) -> str:
    return (
        f"the database {path} is corrupt ({why}); nothing was changed. Replace it by a copy from "
        f"{path.parent / 'backups'} or `sluice backup` and start again, or move it away to start empty"
    )


def _refuse_unknown(present: str, known: set[str], path: Path) -> None:
    if present not in known:
        raise StoreError(
            f"the database {path} has schema {present}, newer than this Sluice supports ({max(known)}): a "
            f"newer Sluice wrote it. Start that version, or restore its copy from {path.parent / 'backups'}"
        )
