"""sluice deploy: deploy a new version of a service, and follow the deployment to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.errors import usage
from app.cli.follow import follow_or_detach
from app.cli.input.files import input_files
from app.cli.input.image_build import BuildOptions, build_image, source_of
from app.cli.input.options import (  # fmt: skip
    Build,
    BuildArgs,
    Deployed,
    Dockerfile,
    Env,
    EnvFile,
    File,
    Image,
    Mode,
    NoProfile,
    Only,
    Port,
    Profile,
    ProfileFile,
    Project,
    Replicas,
    Routes,
    Settings,
    Stage,
)
from app.cli.input.request_body import Arguments, body_of, registry_header
from app.cli.waiting import Waiting

IN_COMPOSE = "Set it in the file, under the service's x-sluice; see docs/compose.md."
"""Advice about an option for one service that is given with a Compose file."""


@command
async def deploy(
    context: CommandContext,
    service: Deployed = None,
    file: File = None,
    image: Image = None,
    build: Build = None,
    dockerfile: Dockerfile = None,
    target: Stage = None,
    build_arg: BuildArgs = None,
    port: Port = None,
    replicas: Replicas = None,
    env: Env = None,
    env_file: EnvFile = None,
    route: Routes = None,
    settings: Settings = None,
    profile: Profile = None,
    profile_file: ProfileFile = None,
    no_profile: NoProfile = False,
    mode: Mode = None,
    note: Annotated[str | None, typer.Option(help="Free text for the history, such as a commit.")] = None,
    expected_revision: Annotated[
        int | None, typer.Option(help="Fail unless this is the current revision; 0 = must not exist.")
    ] = None,
    registry_auth: Annotated[
        str | None, typer.Option(envvar="SLUICE_REGISTRY_AUTH", help="user:password or Docker's base64, for this pull only.")
    ] = None,
    only: Only = None,
    project: Project = None,
    *,
    waiting: Waiting,
) -> int:
    """Deploy a new version of a service without losing a request.

    Starts new instances, admits them when ready, then drains and stops the old ones. Follows the deployment to its end.

    sluice deploy web --image web:1.5 --replicas 3 --route /web

    sluice deploy web --build .

    sluice deploy -f sluice.yaml --note "$COMMIT"

    sluice deploy -f compose.yaml --only web,api

    sluice deploy --profile-file prod.env --image web:1.5
    """
    files = input_files(context, service, file)
    if any(each.is_compose for each in files):
        others = {
            "SERVICE": service, "--image": image, "--port": port, "--replicas": replicas, "--env": env, "--route": route,
            "--set": settings, "--profile-file": profile_file,
            "--no-profile": no_profile or None, "--mode": mode, "--expected-revision": expected_revision,
            "--registry-auth": registry_auth,
            "--build": build, "--dockerfile": dockerfile, "--target": target, "--build-arg": build_arg,
        }  # fmt: skip
        refuse(
            others, f"{files[0]} is a Compose file", "Set it in the file, under the service's x-sluice; see docs/compose.md."
        )
        from app.cli.input.compose import ComposeFile, deploy_together  # loads pydantic, which takes a while

        env_files = tuple(env_file or ())
        compose = ComposeFile(files, only, project, profile, env_files, note)
        return await deploy_together(context, compose, waiting)
    refuse({"--only": only, "--project": project}, "no Compose file is given", "Name the file: -f compose.yaml.")
    spec_file = files[0] if files else None
    given = Arguments(
        service=service,
        file=spec_file,
        image=image,
        port=port,
        replicas=replicas,
        env=env or (),
        env_file=env_file or (),
        route=route or (),
        settings=settings or (),
        profile=profile,
        profile_file=profile_file,
        no_profile=no_profile,
        note=note,
        expected_revision=expected_revision,
        mode=mode.value if mode else None,
    )
    body = body_of(given)
    source = source_of(body, spec_file, image, BuildOptions(build, dockerfile, target, build_arg or ()))
    if source is not None:
        body["image"] = (await build_image(context, body["service"], source))["image"]
    deployment = await context.client.post("/deployments", body, registry_header(registry_auth, body.get("image")))
    return await follow_or_detach(context, deployment, waiting)


def refuse(given: Mapping[str, object], why: str, advice: str) -> None:
    """Raise CliError for the first option in `given` that has a value; `why` it does not apply."""
    for option, value in given.items():
        if value is not None:
            raise usage(f"{option} does not apply: {why}", advice)
