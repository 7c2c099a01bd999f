"""sluice build: build an image from a directory without deploying it, or cancel a running build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.errors import usage
from app.cli.input.image_build import BuildOptions, build_image, cancel_build, source_of
from app.cli.input.options import BuildArgs, Built, Dockerfile, Stage


@command
async def build(
    context: CommandContext,
    service: Built = None,
    directory: Annotated[Path, typer.Argument(help="Build context; files in .dockerignore are not sent.")] = Path(),
    dockerfile: Dockerfile = None,
    target: Stage = None,
    build_arg: BuildArgs = None,
    cancel: Annotated[int | None, typer.Option(min=1, help="Cancel the build with this number.", show_default=False)] = None,
) -> None:
    """Build an image for a service from a directory, without deploying it.

    Prints the image's tag, which is unique to the build.
    """
    if cancel is not None:
        if service is not None:
            raise usage("--cancel excludes SERVICE")
        given_up = await cancel_build(context, cancel)
        context.out.result(given_up, f"{given_up['service']}: build {cancel} cancelled.", str(cancel))
        return
    if service is None:
        raise usage("SERVICE is missing", "`sluice build SERVICE [DIRECTORY]`, or `sluice build --cancel NUMBER`.")
    source = source_of({}, None, None, BuildOptions(directory, dockerfile, target, build_arg or ()))
    if source is not None:
        made = await build_image(context, service, source)
        context.out.result(made, f"{service}: built {made['image']}.", made["image"])
