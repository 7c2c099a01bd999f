"""Parameters that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.completion import instances_and_services, numbers_and_services, services

_FIELDS, _COMPOSE, _BUILD = "Spec", "Compose file", "Build"


class MergeModeOption(StrEnum):
    """How a request's body is combined with the current spec."""

    MERGE = "merge"
    REPLACE = "replace"


Service = Annotated[str, typer.Argument(help="Name of the service.", show_default=False, autocompletion=services)]
MaybeService = Annotated[
    str | None, typer.Argument(help="Name of one service.", show_default=False, autocompletion=services)
]
Built = Annotated[str | None, typer.Argument(help="Service to build for.", show_default=False, autocompletion=services)]
Target = Annotated[
    str,
    typer.Argument(
        help="Number of a deployment, or a service for its latest one.",
        show_default=False,
        autocompletion=numbers_and_services,
    ),
]
Writing = Annotated[
    str,
    typer.Argument(
        help="Service, or an instance such as web-r4-1.", show_default=False, autocompletion=instances_and_services
    ),
]

# The content of a deployment, for deploy and diff.
Deployed = Annotated[
    str | None,
    typer.Argument(help="Name of the service. Default: ./sluice.yaml.", show_default=False, autocompletion=services),
]
File = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", help="sluice.yaml or compose.yaml; - is stdin. Several Compose files are merged."),
]
Image = Annotated[str | None, typer.Option(help="Local or pullable image.", rich_help_panel=_FIELDS)]
Build = Annotated[Path | None, typer.Option(help="Build this directory and deploy the image.", rich_help_panel=_BUILD)]
Port = Annotated[int | None, typer.Option(help="Port that the application listens on.", rich_help_panel=_FIELDS)]
Replicas = Annotated[int | None, typer.Option(help="Number of instances.", rich_help_panel=_FIELDS)]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env", "-e", help="NAME=value, or NAME to take the value from here; repeatable.", rich_help_panel=_FIELDS
    ),
]
EnvFile = Annotated[list[Path] | None, typer.Option(help="File with NAME=value lines; repeatable.", rich_help_panel=_FIELDS)]
Routes = Annotated[
    list[str] | None, typer.Option("--route", help="/path, host or host/path[,strip]; repeatable.", rich_help_panel=_FIELDS)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any field, such as healthcheck.path=/healthz; repeatable.", rich_help_panel=_FIELDS),
]
Dockerfile = Annotated[str | None, typer.Option(help="Path of the Dockerfile in the directory.", rich_help_panel=_BUILD)]
Stage = Annotated[
    str | None, typer.Option("--target", help="Stage to build. Default: the last one.", rich_help_panel=_BUILD)
]
BuildArgs = Annotated[
    list[str] | None, typer.Option("--build-arg", help="NAME=value for an ARG; repeatable.", rich_help_panel=_BUILD)
]
Profile = Annotated[str | None, typer.Option(help="Profile of the spec.")]
ProfileFile = Annotated[
    Path | None, typer.Option(help="Profile from a file such as prod.env (APP_NAME, INSTANCE_NUM, EXCLUDED_PORTS).")
]
NoProfile = Annotated[bool, typer.Option("--no-profile", help="Remove the profile.")]
Mode = Annotated[
    MergeModeOption | None,
    typer.Option(help="Merge into the current spec, or replace it. Default: merge; replace with -f.", show_default=False),
]
Only = Annotated[str | None, typer.Option(help="Only these services (comma-separated).", rich_help_panel=_COMPOSE)]
Project = Annotated[
    str | None, typer.Option("--project", "-p", help="Name of the Compose project.", rich_help_panel=_COMPOSE)
]
