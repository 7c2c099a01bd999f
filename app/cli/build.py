"""sluice build: make an image of a directory, without deploying it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.building import Typed, build_image, source_of
from app.cli.options import BuildArgs, Dockerfile, Service, Stage
from app.cli.verb import Desk, verb


@verb
async def build(
    desk: Desk,
    service: Service,
    directory: Annotated[Path, typer.Argument(help="The context; what .dockerignore names stays here.")] = Path(),
    dockerfile: Dockerfile = None,
    target: Stage = None,
    build_arg: BuildArgs = None,
) -> None:
    """Build an image for a service from a directory; nothing is deployed.

    It gets a tag that no other build ever gets, which is the result.
    """
    source = source_of({}, None, None, Typed(directory, dockerfile, target, build_arg or ()))
    if source is not None:
        made = await build_image(desk, service, source)
        desk.out.result(made, f"{service}: built {made['image']}.", made["image"])
