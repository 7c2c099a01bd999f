"""Parameters that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.completion import instances_and_services, numbers_and_services, services

_FIELDS, _COMPOSE, _BUILD = "The spec", "A Compose file", "A build"


class How(StrEnum):
    """How a request's body is combined with the current spec."""

    MERGE = "merge"
    REPLACE = "replace"


Service = Annotated[str, typer.Argument(help="A service's name.", show_default=False, autocompletion=services)]
MaybeService = Annotated[str | None, typer.Argument(help="One service only.", show_default=False, autocompletion=services)]
Built = Annotated[str | None, typer.Argument(help="Whose image it is.", show_default=False, autocompletion=services)]
Target = Annotated[
    str,
    typer.Argument(
        help="A deployment's number, or a service for its newest.", show_default=False, autocompletion=numbers_and_services
    ),
]
Writing = Annotated[
    str,
    typer.Argument(
        help="A service, or an instance such as web-r4-1.", show_default=False, autocompletion=instances_and_services
    ),
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not follow; print the deployment's number.")]

# The content of a deployment, for deploy and diff.
Deployed = Annotated[
    str | None,
    typer.Argument(help="Its name. Without it: ./sluice.yaml.", show_default=False, autocompletion=services),
]
File = Annotated[
    str | None, typer.Option("--file", "-f", help="A sluice.yaml or a compose.yaml; - is stdin, a sluice.yaml.")
]
Image = Annotated[str | None, typer.Option(help="Any reference the engine can pull or has.", rich_help_panel=_FIELDS)]
Build = Annotated[Path | None, typer.Option(help="Build this directory, and deploy that.", rich_help_panel=_BUILD)]
Port = Annotated[int | None, typer.Option(help="What the application listens on.", rich_help_panel=_FIELDS)]
Replicas = Annotated[int | None, typer.Option(help="How many instances.", rich_help_panel=_FIELDS)]
Env = Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=value; again for more.", rich_help_panel=_FIELDS)]
EnvFile = Annotated[list[Path] | None, typer.Option(help="A file of NAME=value lines.", rich_help_panel=_FIELDS)]
Routes = Annotated[
    list[str] | None, typer.Option("--route", help="/path, host or host/path[,strip].", rich_help_panel=_FIELDS)
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any field: healthcheck.path=/healthz.", rich_help_panel=_FIELDS)
]
Dockerfile = Annotated[str | None, typer.Option(help="Its path in the directory.", rich_help_panel=_BUILD)]
Stage = Annotated[str | None, typer.Option("--target", help="The stage to build; else the last.", rich_help_panel=_BUILD)]
BuildArgs = Annotated[
    list[str] | None, typer.Option("--build-arg", help="NAME=value for an ARG; again for more.", rich_help_panel=_BUILD)
]
Profile = Annotated[str | None, typer.Option(help="A profile of the spec.")]
ProfileFile = Annotated[
    Path | None, typer.Option(help="A profile that is a file, such as prod.env: APP_NAME, INSTANCE_NUM, EXCLUDED_PORTS.")
]
NoProfile = Annotated[bool, typer.Option("--no-profile", help="Without any profile from now on.")]
Mode = Annotated[How | None, typer.Option(help="Over what is there, or in its place (as -f does).", show_default=False)]
Only = Annotated[str | None, typer.Option(help="Of the file, these services alone, with commas.", rich_help_panel=_COMPOSE)]
Project = Annotated[str | None, typer.Option("--project", "-p", help="The project's name.", rich_help_panel=_COMPOSE)]
