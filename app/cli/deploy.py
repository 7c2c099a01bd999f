"""sluice deploy: bring a service to a new version, and follow it to the end."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.body import Arguments, body_of, registry_header
from app.cli.follow import settle
from app.cli.options import Detach
from app.cli.specfile import DEFAULT_FILE
from app.cli.verb import Desk, verb

_FIELDS = "The spec"


class Mode(StrEnum):
    MERGE = "merge"
    REPLACE = "replace"


@verb
async def deploy(
    desk: Desk,
    service: Annotated[str | None, typer.Argument(help="Its name. Without it: ./sluice.yaml.", show_default=False)] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="A sluice.yaml; - is stdin.")] = None,
    image: Annotated[
        str | None, typer.Option(help="Any reference the engine can pull or has.", rich_help_panel=_FIELDS)
    ] = None,
    port: Annotated[int | None, typer.Option(help="What the application listens on.", rich_help_panel=_FIELDS)] = None,
    replicas: Annotated[int | None, typer.Option(help="How many instances.", rich_help_panel=_FIELDS)] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=value; again for more.", rich_help_panel=_FIELDS)
    ] = None,
    env_file: Annotated[list[Path] | None, typer.Option(help="A file of NAME=value lines.", rich_help_panel=_FIELDS)] = None,
    route: Annotated[
        list[str] | None, typer.Option(help="/path, host or host/path[,strip].", rich_help_panel=_FIELDS)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any field: healthcheck.path=/healthz.", rich_help_panel=_FIELDS)
    ] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of the spec.")] = None,
    no_profile: Annotated[bool, typer.Option("--no-profile", help="Without any profile from now on.")] = False,
    note: Annotated[str | None, typer.Option(help="Free text for the history, such as a commit.")] = None,
    expected_revision: Annotated[int | None, typer.Option(help="Refuse when it is not the present one.")] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Over what is there, or in its place (as -f does).", show_default=False)
    ] = None,
    registry_auth: Annotated[
        str | None, typer.Option(envvar="SLUICE_REGISTRY_AUTH", help="user:password, or Docker's base64, for this pull.")
    ] = None,
    detach: Detach = False,
) -> int:
    """Bring a service to a new version without losing a request.

    New instances come, prove themselves and take over; then the old ones leave. Followed to the end.

    sluice deploy web --image web:1.5 --replicas 3 --route /web

    sluice deploy -f sluice.yaml --note "$COMMIT"
    """
    if service is None and file is None and Path(DEFAULT_FILE).exists():  # noqa: ASYNC240 (one look, before anything runs)
        file = DEFAULT_FILE
        desk.out.say(f"Deploying what {DEFAULT_FILE} says.")
    given = Arguments(
        service=service,
        file=file,
        image=image,
        port=port,
        replicas=replicas,
        env=env or (),
        env_file=env_file or (),
        route=route or (),
        settings=settings or (),
        profile=profile,
        no_profile=no_profile,
        note=note,
        expected_revision=expected_revision,
        mode=mode.value if mode else None,
    )
    body = body_of(given)
    deployment = await desk.client.post("/deployments", body, registry_header(registry_auth, body.get("image")))
    return await settle(desk, deployment, detach=detach)
