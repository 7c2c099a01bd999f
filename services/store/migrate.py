"""Bring a database file to the revision that this Sluice knows: copied first, whole or not at all, refused when unknown."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

import migrations
from services.store.backup import copy
from services.store.refusal import StoreError

MIGRATIONS = Path(migrations.__file__).parent


def config() -> Config:
    """Alembic's, wherever the package is installed."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def migrate(path: Path, backups: Path) -> None:
    """Upgrade the database at `path`, making it when it is not there. StoreError leaves it as it was.

    One that has something in it is copied into `backups` before it is changed.
    """
    scripts = ScriptDirectory.from_config(config())
    head = scripts.get_current_head() or ""
    present = _revision(path)
    if present == head:
        return
    if present is not None:
        _refuse_unknown(present, {script.revision for script in scripts.walk_revisions()}, path)
        copy(path, backups / f"before-{head}-from-{present}.db", keep=True)
    _upgrade(path)


def _revision(path: Path) -> str | None:
    """None for a database that has nothing in it yet. Checks the whole file on the way."""
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
        raise StoreError(
            f"{path} is a database, but not Sluice's; SLUICE_DATA names the wrong directory, or the file has to go"
        )
    return None


def _corrupt(path: Path, why: str) -> str:
    return (
        f"the database {path} is corrupt ({why}); nothing was changed. Put a copy from {path.parent / 'backups'} or of "
        "`sluice backup` in its place and start again, or move it away to begin anew"
    )


def _refuse_unknown(present: str, known: set[str], path: Path) -> None:
    if present not in known:
        newest = max(known, default="none")
        raise StoreError(
            f"the database {path} has schema {present}, which this Sluice does not know (it knows up to {newest}): a newer "
            f"Sluice wrote it. Start that one, or put the copy that it made in {path.parent / 'backups'} in its place"
        )


def _upgrade(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _plain(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver would commit before each CREATE TABLE
        connection.execute("PRAGMA busy_timeout=5000")

    @event.listens_for(engine, "begin")
    def _begin(connection: object) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]

    try:
        with engine.begin() as connection:
            settings = config()
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if broken is not None:
                raise StoreError(
                    f"the database {path} could not be migrated: rows of {broken[0]} name rows that are not there"
                )
    except DBAPIError as error:
        raise StoreError(f"the database {path} could not be migrated and is as it was: {error.orig}") from error
    finally:
        engine.dispose()
