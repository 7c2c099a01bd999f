"""sluice serve: the control plane on this machine."""

from __future__ import annotations

import typer

from app.cli.errors import USAGE
from app.cli.terminal import echo


def serve() -> None:
    """Run the control plane in this process until SIGTERM.

    Settings come from the environment (SLUICE_…) and from the file that SLUICE_CONFIG names.
    """
    # the server and its dependencies take a second to load: do not delay the other commands
    from app.server import serve as run
    from app.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    raise typer.Exit(run(settings))
