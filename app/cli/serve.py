"""sluice serve: the control plane itself, on this machine."""

from __future__ import annotations

import typer

from app.cli.trouble import USAGE


def serve() -> None:
    """Run Sluice's control plane here, until SIGTERM. Settings: the environment (SLUICE_…), and SLUICE_CONFIG's file."""
    # the server and all that it stands on take a second to load: no other verb should wait for that
    from app.serve import serve as run
    from app.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    raise typer.Exit(run(settings))
