"""sluice ps, status, history: services and instances, deployments, and Sluice's own state."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.commands.deployment_actions import find_deployment
from app.cli.commands.watch import watch
from app.cli.completion import numbers_and_services
from app.cli.errors import NOT_SUCCEEDED, usage
from app.cli.follow import finish, follow
from app.cli.input.options import MaybeService
from app.cli.output.console import columns, pairs
from app.cli.output.messages import GONE, Document, ago, took
from app.cli.output.tables import deployment_table, instances_table, part, service_table, services_table
from app.cli.waiting import Timeout, seconds_of

_PARTS = ("engine", "network", "gateway", "store", "sluice", "unknown_containers")
PROBLEMS = ("down", "unhealthy", "crash_looping", "paused", "deployment_failed")
"""States of services that need attention (docs/api.md)."""
_MOST_GONE = 200
"""Maximum number of ended instances that --all shows for each of their statuses."""


@command
async def ps(
    context: CommandContext,
    service: MaybeService = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Include removed instances and services.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Only services that need attention.")] = False,
    watching: Annotated[bool, typer.Option("--watch", "-w", help="Update on every change, until Ctrl-C.")] = False,
) -> None:
    """List services and their instances."""
    load = partial(_running, context, service, every, problems)
    if watching:
        await watch(context, load)
    document, text = await load()
    context.out.result(document, text, "\n".join(instance["id"] for instance in document["instances"]))
    if not document["services"] and problems:
        context.out.say("No service needs attention.")
    elif not document["services"]:
        context.out.say("No services. Create one with `sluice deploy NAME --image IMAGE`.")


async def _running(context: CommandContext, service: str | None, every: bool, problems: bool) -> tuple[Document, str]:
    """Return services and instances as a document, and the same as two tables."""
    if service:
        found = await context.client.get(f"/services/{service}")
        services = [found] if not problems or found["state"] in PROBLEMS else []
    else:
        states = list(PROBLEMS) if problems else None
        services = await context.client.get_all("/services", removed=every or None, state=states)
    instances = await context.client.get_all("/instances", service=service)
    if every:
        known = {instance["id"] for instance in instances}
        for state in GONE:
            gone = await context.client.get_all("/instances", most=_MOST_GONE, service=service, status=state)
            instances += [instance for instance in gone if instance["id"] not in known]
    if problems:
        names = {item["name"] for item in services}
        instances = [instance for instance in instances if instance["service"] in names]
    services.sort(key=lambda item: str(item["name"]))
    instances.sort(key=lambda item: (item["service"], item.get("revision") or 0, item.get("slot") or 0))
    width = context.out.width
    text = f"{services_table(services, width)}\n\n{instances_table(instances, width)}".rstrip() if services else ""
    return {"services": services, "instances": instances}, text


@command
async def status(
    context: CommandContext,
    target: Annotated[
        str | None,
        typer.Argument(
            help="Service, or number of a deployment. Default: Sluice itself.",
            show_default=False,
            autocompletion=numbers_and_services,
        ),
    ] = None,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Follow the deployment to its end.")] = False,
    timeout: Timeout = None,
) -> int:
    """Show a service, a deployment, or Sluice itself."""
    if timeout is not None and not following:
        raise usage("--timeout does not apply without --follow", "`sluice status SERVICE --follow --timeout 5m`.")
    if target is None:
        if following:
            raise usage(
                "nothing to follow: SERVICE or NUMBER is missing",
                "`sluice status SERVICE --follow` or `sluice status NUMBER --follow`.",
            )
        return await _sluice(context)
    if following:
        seconds = None if timeout is None else seconds_of(timeout)
        return await finish(context, await follow(context, await find_deployment(context, target), seconds))
    if target.isdigit():
        deployment = await context.client.get(f"/deployments/{target}")
        context.out.result(deployment, deployment_table(deployment), deployment["status"])
        return 0
    service = await context.client.get(f"/services/{target}")
    newest = await context.client.get_all("/deployments", most=1, service=target)
    document = {**service, "newest_deployment": newest[0] if newest else None}
    context.out.result(document, service_table(service, newest[0] if newest else None), service["status"])
    return 0


@command
async def history(
    context: CommandContext,
    service: MaybeService = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of deployments.")] = 20,
) -> None:
    """List deployments, newest first."""
    rows = await context.client.get_all("/deployments", most=limit, service=service)
    if service is not None and not rows:
        await context.client.get(f"/services/{service}")  # refuses an unknown name
    titles = ("ID", "SERVICE", "KIND", "STATUS", "REASON", "REV", "IMAGE", "AGO", "TOOK", "BY", "NOTE")
    table = [
        (d["id"], d["service"], d["kind"], d["status"], d.get("reason"), d.get("revision"), d.get("image"),
         ago(d.get("created_at")), took(d), (d.get("created_by") or {}).get("name"), d.get("note"))
        for d in rows
    ]  # fmt: skip
    context.out.result(rows, columns(titles, table, context.out.width), "\n".join(str(d["id"]) for d in rows))


async def _sluice(context: CommandContext) -> int:
    """Print the state of Sluice and its infrastructure, and the deployments in progress.

    Returns the exit code.
    """
    ready = await context.client.get("/readyz", accepted_status=503)
    about = await context.client.get("/version")
    running = [
        deployment
        for state in ("pending", "progressing", "paused", "rolling_back")
        for deployment in await context.client.get_all("/deployments", most=50, status=state)
    ]
    fine = ready.get("status") == "ready"
    facts = [
        ("sluice", f"{about.get('version')} at {context.client.place.url}"),
        ("status", "ready" if fine else "not ready"),
    ]
    facts += [(name.replace("_", " "), part(ready.get(name))) for name in _PARTS if ready.get(name)]
    text = pairs(facts)
    if running:
        rows = [(d["id"], d["service"], d["kind"], d["status"], d.get("message")) for d in running]
        text += "\n\n" + columns(("ID", "SERVICE", "KIND", "STATUS", "MESSAGE"), rows, context.out.width)
    context.out.result({"ready": ready, "version": about, "running": running}, text, "ready" if fine else "not ready")
    return 0 if fine else NOT_SUCCEEDED
