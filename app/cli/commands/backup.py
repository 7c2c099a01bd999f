"""sluice backup: a complete copy of the database, while Sluice runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli.command import local_command
from app.cli.errors import NOT_SUCCEEDED, CliError, usage
from app.cli.output.console import Output

_HERE = Path(f"/var/lib/{os.environ.get('SLUICE_NAME') or 'sluice'}")


@local_command
def backup(
    out: Output,
    file: Annotated[Path, typer.Argument(help="File to write; must not exist.", show_default=False)],
    data: Annotated[Path, typer.Option(envvar="SLUICE_DATA", help="Sluice's data directory on this machine.")] = _HERE,
) -> None:
    """Copy the database of this machine's Sluice while Sluice runs."""
    # the store and its dependencies load slowly: do not delay the other commands
    from services.store.backup import copy
    from services.store.errors import StoreError
    from services.store.open import DATABASE

    database = data / DATABASE
    try:
        if not database.is_file():
            raise usage(f"database {database} not found", "Set Sluice's data directory: --data or SLUICE_DATA.")
        if file.exists():
            raise usage(f"{file} already exists", "Choose another name: a backup overwrites no file.")
        copy(database, file)
    except (StoreError, OSError) as error:
        document = {"code": "backup_failed", "detail": str(error)}
        raise CliError(
            str(error), f"Check that {file.parent} is writable and has enough free space.", NOT_SUCCEEDED, document
        ) from error
    size = file.stat().st_size
    text = f"{file} is a complete copy of {database} ({size / 1024:.0f} KiB)."
    out.result({"file": str(file), "bytes": size}, text, str(file))
    out.say("To restore it: stop Sluice, replace the database by the copy, remove the -wal and -shm files, start Sluice.")
