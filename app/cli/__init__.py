"""The command `sluice`: one module for each command."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.commands import deployment_actions, gateway, service_changes, token
from app.cli.commands.backup import backup
from app.cli.commands.build import build
from app.cli.commands.deploy import deploy
from app.cli.commands.diff import diff
from app.cli.commands.doctor import doctor
from app.cli.commands.init import init
from app.cli.commands.loadtest import loadtest
from app.cli.commands.logs import logs
from app.cli.commands.open import open_page
from app.cli.commands.serve import serve
from app.cli.commands.sign_in import sign_in
from app.cli.commands.status import history, ps, status
from app.cli.commands.up import down, up
from app.cli.commands.version import version
from app.version import VERSION


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {VERSION}")
        raise typer.Exit


cli = typer.Typer(
    name="sluice",
    help="Deploys, scales and watches containerised services on Docker without losing a request.",
    epilog="Exit codes: 0 succeeded, 1 not succeeded, 2 called wrongly or refused, 3 Sluice not reached, 4 superseded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_CHANGING, _LOOKING, _MACHINE = "Change what runs", "Look", "This Sluice"
for panel, verbs in (
    (
        _CHANGING,
        (
            deploy,
            build,
            service_changes.scale,
            service_changes.rollback,
            service_changes.restart,
            service_changes.rm,
            deployment_actions.pause,
            deployment_actions.resume,
            deployment_actions.abort,
            deployment_actions.retry,
        ),
    ),
    (_LOOKING, (diff, ps, status, logs, history, open_page, loadtest, doctor, version)),
    (_MACHINE, (init, up, down, serve, backup, sign_in)),
):
    for verb in verbs:
        cli.command(verb.__name__.removesuffix("_page").replace("_", "-"), rich_help_panel=panel)(verb)
cli.add_typer(token.app, name="token", rich_help_panel=_MACHINE)
cli.add_typer(gateway.app, name="gateway", rich_help_panel=_MACHINE)


_Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and exit.")]


@cli.callback()
def sluice(_version: _Version = False) -> None: ...


def main() -> None:
    """Run the command line; the entry point of the console script."""
    cli()
