"""sluice diff: what a deployment would change and do, or the difference between two revisions."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Annotated, Any

import typer

from app.cli.command import CommandContext, command
from app.cli.commands.deploy import refuse
from app.cli.errors import usage
from app.cli.input.files import input_files
from app.cli.input.image_build import BuildOptions, source_of
from app.cli.input.options import (  # fmt: skip
    Deployed,
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
)
from app.cli.input.request_body import Arguments, body_of
from app.cli.output.messages import Document
from app.cli.terminal import styled
from services.printable import strip_control_characters

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_MOST_NAMED = 4
_DIGEST = len("sha256:") + 12
_REVISIONS = "Between two revisions"


@command
async def diff(
    context: CommandContext,
    service: Deployed = None,
    file: File = None,
    image: Image = None,
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
    only: Only = None,
    project: Project = None,
    from_revision: Annotated[
        int | None, typer.Option("--from", min=1, help="Default: the current revision.", rich_help_panel=_REVISIONS)
    ] = None,
    to_revision: Annotated[
        int | None, typer.Option("--to", min=1, help="Default: the current revision.", rich_help_panel=_REVISIONS)
    ] = None,
) -> None:
    """Show what a deployment would change, and its steps, without deploying.

    Takes the arguments of `sluice deploy`. With --from or --to: shows the differences between two revisions.

    sluice diff web --image web:1.6

    sluice diff -f sluice.yaml

    sluice diff -f compose.yaml --only web

    sluice diff web --to 3
    """
    if from_revision is not None or to_revision is not None:
        if service is None:
            raise usage("SERVICE is missing", "`sluice diff NAME --from 3 --to 4`.")
        await _between(context, service, from_revision, to_revision)
        return
    files = input_files(context, service, file)
    if any(each.is_compose for each in files):
        fields = {
            "SERVICE": service, "--image": image, "--port": port, "--replicas": replicas, "--env": env, "--route": route,
            "--set": settings, "--profile-file": profile_file,
            "--no-profile": no_profile or None, "--mode": mode,
        }  # fmt: skip
        refuse(
            fields, f"{files[0]} is a Compose file", "Set it in the file, under the service's x-sluice; see docs/compose.md."
        )
        from app.cli.input.compose import ComposeFile, request_of  # loads pydantic, which takes a while

        compose = ComposeFile(files, only, project, profile, tuple(env_file or ()))
        await _together(context, *request_of(context, compose))
        return
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
        mode=mode.value if mode else None,
    )
    body = body_of(given)
    if source_of(body, spec_file, image, BuildOptions()) is not None:
        raise usage(
            f"{spec_file}: the service has no image yet, because it is built",
            "Build the image (`sluice build`), and name it with --image.",
        )
    if set(body) <= {"service", "mode"}:
        advice = f"`sluice diff {body['service']} --image IMAGE`, `sluice diff -f FILE`, or `--to N` for a revision."
        raise usage("nothing to compare", advice)
    preview = await context.client.post("/deployments?dry_run=true", body)
    context.out.result(preview, preview_sheet(preview), "\n".join(change["field"] for change in preview["diff"]))


async def _together(context: CommandContext, path: str, body: Document) -> None:
    """Print a preview of each service of a Compose file."""
    answer = await context.client.post(f"{path}&dry_run=true", body)
    previews = answer["previews"]
    changed = "\n".join(preview["service"] for preview in previews if not preview["unchanged"])
    context.out.result(answer, "\n\n".join(map(preview_sheet, previews)), changed)


async def _between(context: CommandContext, service: str, old: int | None, new: int | None) -> None:
    if old is None or new is None:
        present = (await context.client.get(f"/services/{service}"))["revision"]
        if present is None:
            raise usage(f"{service} has no current revision to compare with", "Set both --from and --to.")
        old, new = old or present, new or present
    answer = await context.client.get(f"/services/{service}/revisions/{old}/diff", to=new)
    head = f"{service}: revision {old} → {new}"
    head += "; instances are replaced" if answer["replaces_instances"] else ""
    text = "\n".join([head, *(changes_sheet(answer["diff"]) or ["  no difference"])])
    context.out.result(answer, text, "\n".join(change["field"] for change in answer["diff"]))


def preview_sheet(preview: Document) -> str:
    """Format the answer to a dry run: the changes, then the steps."""
    name, old, new = preview["service"], preview["from_revision"], preview["revision"]
    where = f"revision {new}" if old in (None, new) else f"revision {old} → {new}"
    lines = [f"{name}: {where}; {preview['message']}", *changes_sheet(preview["diff"])]
    if preview["steps"]:
        lines += ["", *steps_sheet(preview["steps"])]
    warnings = [f"warning: {warning['message']} ({warning['code']})" for warning in preview["warnings"]]
    return "\n".join([*lines, *([""] if warnings else []), *warnings])


def changes_sheet(changes: list[Document]) -> list[str]:
    """Format changes, one line for each field."""
    width = max((len(change["field"]) for change in changes), default=0)
    lines = []
    for change in changes:
        sign, colour = _SIGNS[change["change"]]
        old, new = _value(change["old"]), _value(change["new"])
        value = {"added": new, "removed": old}.get(change["change"], f"{old} → {new}")
        lines.append(styled(f"  {sign} {strip_control_characters(change['field']).ljust(width)}  {value}", colour))
    return lines


def steps_sheet(steps: list[Document]) -> list[str]:
    """Format steps, one line for those that run in parallel: `1  start web-r4-1, web-r4-2`."""
    lines = []
    for turn, together in groupby(steps, key=lambda step: step["turn"]):
        by_action: dict[str, list[str]] = {}
        for step in together:
            by_action.setdefault(step["action"], []).append(step["instance"])
        for number, (action, instances) in enumerate(by_action.items()):
            lines.append(f"{'' if number else turn:>3}  {action:<8}  {_listed(instances)}")
    return lines


def _listed(instances: list[str]) -> str:
    if len(instances) <= _MOST_NAMED:
        return ", ".join(instances)
    return f"{instances[0]}, {instances[1]} … {instances[-1]} ({len(instances)} instances)"


def _value(value: Any) -> str:
    text = strip_control_characters(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text[:_DIGEST] if text.startswith("sha256:") else text
