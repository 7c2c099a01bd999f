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
    file: Annotated[Path, typer.Argument(help="Where the copy goes; must not exist.", show_default=False)],
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
            raise usage(f"there is no {database}", "Say where Sluice keeps its data: --data or SLUICE_DATA.")
        if file.exists():
            raise usage(f"{file} is there already", "A backup never overwrites: choose another name.")
        copy(database, file)
    except (StoreError, OSError) as error:
        document = {"code": "backup_failed", "detail": str(error)}
        raise CliError(str(error), f"Is {file.parent} writable, with room enough?", NOT_SUCCEEDED, document) from error
    size = file.stat().st_size
    text = f"{file} holds the whole of {database} ({size / 1024:.0f} KiB)."
    out.result({"file": str(file), "bytes": size}, text, str(file))
    out.say("To go back to it: stop Sluice, put it in the database's place, remove the -wal and -shm files, start Sluice.")
