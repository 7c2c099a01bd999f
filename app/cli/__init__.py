"""The command `sluice`: one file a verb."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import act, change, gateway, token
from app.cli.backup import backup
from app.cli.build import build
from app.cli.deploy import deploy
from app.cli.diff import diff
from app.cli.doctor import doctor
from app.cli.init import init
from app.cli.loadtest import loadtest
from app.cli.logs import logs
from app.cli.look import history, ps, status
from app.cli.open import open_page
from app.cli.serve import serve
from app.cli.sign_in import sign_in
from app.cli.up import down, up
from app.cli.version import version
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
            change.scale,
            change.rollback,
            change.restart,
            change.rm,
            act.pause,
            act.resume,
            act.abort,
            act.retry,
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
    """The console script."""
    cli()
