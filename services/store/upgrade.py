"""The part of a migration that uses Alembic, imported only if there is something to migrate."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

from services.store.errors import StoreError


def config(migrations: Path) -> Config:
    """Return Alembic's configuration, which does not depend on where the package is installed."""
    made = Config()
    made.set_main_option("script_location", str(migrations).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(path: Path, migrations: Path) -> None:
    """Upgrade the database at `path` to the newest revision in `migrations`.

    Raises StoreError and leaves the database unchanged if the upgrade fails.
    """
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
            settings = config(migrations)
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if broken is not None:
                raise StoreError(f"the database {path} could not be migrated: rows of {broken[0]} refer to missing rows")
    except DBAPIError as error:
        raise StoreError(f"the database {path} could not be migrated and is unchanged: {error.orig}") from error
    finally:
        engine.dispose()
