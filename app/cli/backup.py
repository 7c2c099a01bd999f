"""sluice backup: a whole copy of the database, while Sluice runs."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import Output
from app.cli.trouble import NOT_SUCCEEDED, Trouble, usage
from app.cli.verb import local_verb

DATABASE = "sluice.db"


@local_verb
def backup(
    out: Output,
    file: Annotated[Path, typer.Argument(help="Where the copy goes; must not exist.", show_default=False)],
    data: Annotated[Path, typer.Option(envvar="SLUICE_DATA", help="Sluice's data directory on this machine.")] = Path(
        "/var/lib/sluice"
    ),
) -> None:
    """Copy Sluice's database to a file, consistent at one instant, without stopping anything."""
    database = data / DATABASE
    if not database.is_file():
        raise usage(f"there is no {database}", "Say where Sluice keeps its data: --data or SLUICE_DATA.")
    if file.exists():
        raise usage(f"{file} exists already", "Nothing is overwritten: choose another name.")
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        _copy(database, part)
        os.link(part, file)  # unlike a rename it overwrites nothing that came meanwhile
    except (OSError, sqlite3.Error) as error:
        raise Trouble(
            f"no backup was made: {error}", f"Is {file.parent} writable, with room enough?", NOT_SUCCEEDED
        ) from error
    finally:
        part.unlink(missing_ok=True)
    size = file.stat().st_size
    document = {"file": str(file), "bytes": size}
    out.result(document, f"{file} holds the whole of {database} ({size / 1024:.0f} KiB).", str(file))
    out.say(
        "To go back to it: stop Sluice, put it in the place of the database (remove its -wal and -shm files), start Sluice."
    )


def _copy(database: Path, to: Path) -> None:
    """One transaction of SQLite's own; then the copy is read through once. Raises sqlite3.Error."""
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    source = sqlite3.connect(database.resolve().as_uri() + "?mode=ro", uri=True, timeout=30)
    try:
        source.execute("VACUUM INTO ?", (str(to),))
    finally:
        source.close()
    copy = sqlite3.connect(to)
    try:
        found = copy.execute("PRAGMA quick_check").fetchone()[0]
    finally:
        copy.close()
    if found != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged: {found}")
