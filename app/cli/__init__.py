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
from app.cli.help import HelpCommand, HelpGroup
from app.version import VERSION


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {VERSION}")
        raise typer.Exit


cli = typer.Typer(
    name="sluice",
    cls=HelpGroup,
    help="Deploys, scales and monitors containerised services on Docker without losing a request.",
    epilog="Exit codes: 0 succeeded, 1 did not succeed, 2 wrong usage or refused, 3 Sluice unreachable, 4 superseded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DEPLOYMENT, _INSPECTION, _ADMINISTRATION = "Deploy and change", "Inspect", "Administration"
for panel, verbs in (
    (
        _DEPLOYMENT,
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
    (_INSPECTION, (diff, ps, status, logs, history, open_page, loadtest, doctor, version)),
    (_ADMINISTRATION, (init, up, down, serve, backup, sign_in)),
):
    for verb in verbs:
        name = verb.__name__.removesuffix("_page").replace("_", "-")
        cli.command(name, cls=HelpCommand, rich_help_panel=panel)(verb)
cli.add_typer(token.app, name="token", rich_help_panel=_ADMINISTRATION)
cli.add_typer(gateway.app, name="gateway", rich_help_panel=_ADMINISTRATION)


_Version = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
]


@cli.callback()
def sluice(_version: _Version = False) -> None: ...


def main() -> None:
    """Run the command line; the entry point of the console script."""
    cli()
