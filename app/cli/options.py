"""Parameters that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Service = Annotated[str, typer.Argument(help="A service's name.", show_default=False)]
Target = Annotated[str, typer.Argument(help="A deployment's number, or a service for its newest.", show_default=False)]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not follow; print the deployment's number.")]
