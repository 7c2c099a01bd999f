"""POST /apply: deploy the services of a Compose file, all of them or none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, StringConstraints
from sqlmodel import Session, col, select

from app.api import schemas
from app.api.context import get_app_context
from app.api.deployment_responses import DeploymentPoll
from app.api.examples import APPLIED, COMPOSE, PREVIEW
from app.api.idempotency import claim
from app.api.params import DryRun, IdempotencyKey, Wait
from app.api.request_body import Body, check, read_bytes, read_object
from app.api.responses import CHANGE, WAITED, read_responses
from app.auth import Writer
from app.context import AppContext
from app.problems import Problem
from services.actor import Actor
from services.compose.document import ComposeError, ComposeFinding
from services.compose.reader import ComposeOptions, ComposeProject, read
from services.compose.service import PROJECT_LABEL
from services.errors import FieldError, RequestError, prefix_fields
from services.rollouts.requests import commands
from services.rollouts.requests.command import DeployRequest, GroupMember, RequestContext
from services.rollouts.state.status import Status
from services.store.tables import Deployment, Revision, Service

router = APIRouter(tags=["deployments"])
_Text = Annotated[str, StringConstraints(max_length=131_072, pattern=r"^[^\x00]*$")]


class ComposeBody(Body):
    """A Compose file with the client's data for it.

    The data are the variables, and the contents of the env_files by their paths as written.
    """

    compose: str
    variables: dict[str, _Text] = Field(default_factory=dict, max_length=10_000)
    env_files: dict[str, dict[str, _Text]] = Field(default_factory=dict, max_length=100)


_BODY = {
    "required": True,
    "content": {
        "application/yaml": {"schema": {"type": "string"}, "examples": {"file": {"value": COMPOSE}}},
        "application/json": {
            "schema": {"$ref": "#/components/schemas/ComposeBody"},
            "examples": {"with_variables": {"value": {"compose": COMPOSE, "variables": {"TAG": "1.5"}}}},
        },
    },
}
_RESPONSES = {
    **read_responses(
        202, schemas.Applied, APPLIED, *CHANGE, *WAITED, "invalid_compose", "idempotency_key_reused",
        "deployment_in_progress", "engine_unavailable", description="accepted",
        headers={"Location": {"description": "the group's deployments", "schema": {"type": "string"}}},
    ),
    200: {
        "description": "with ?wait=: all succeeded; with ?dry_run=true: the changes and steps of each",
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Applied", "Previews")]},
                "examples": {"succeeded": {"value": APPLIED}, "dry_run": {"value": {"previews": [PREVIEW]}}},
            }
        },
    },
}  # fmt: skip


@router.post("/apply", status_code=202, responses=_RESPONSES, openapi_extra={"requestBody": _BODY})
async def apply(  # noqa: PLR0913 - query parameters
    request: Request,
    caller: Writer,
    project: Annotated[
        str | None, Query(max_length=63, description="name of the project; default: the file's name:")
    ] = None,
    directory: Annotated[
        str | None,
        Query(max_length=1024, pattern="^/[^\x00]*$", description="directory that relative host paths are relative to"),
    ] = None,
    only: Annotated[str, Query(max_length=4000, description="only these services, comma-separated")] = "",
    profiles: Annotated[str, Query(max_length=1000, description="Compose profiles, comma-separated")] = "",
    note: Annotated[str | None, Query(max_length=1000, pattern="^[^\x00]*$", description="text for the history")] = None,
    wait: Wait = None,
    dry_run: DryRun = False,
    key: IdempotencyKey = None,
) -> Response:
    """Deploy the services of a Compose file (docs/compose.md).

    The body is the file itself, or JSON with the file and the client's data for it.
    """
    sluice = get_app_context(request)
    body = await _body(request)
    owners = await sluice.store.read(_owners)
    chosen = frozenset(_listed(profiles))
    options = ComposeOptions(body.variables, body.env_files, project, directory, _listed(only), chosen)
    try:
        compose_project = await anyio.to_thread.run_sync(read, body.compose, options)
    except ComposeError as error:
        raise _invalid(error.findings) from None
    for each in compose_project.services:
        caller.require_service(each.name)
    running = await sluice.engine.compose_containers(compose_project.project)
    _refuse_owned(compose_project, owners, running)
    compose_project.connect(owners.keys(), running.keys())
    members = _members(compose_project, note)
    options_query = f"?{project or ''}&{directory or ''}&{only}&{profiles}&{note or ''}"
    context = RequestContext(caller.actor, await claim(request, caller, key, also=options_query))
    try:
        if dry_run:
            return JSONResponse({"previews": [await _preview(sluice, member, caller.actor) for member in members]})
        ids = await sluice.submitter.submit_group(members, context)
    except RequestError as error:
        raise _located(error, compose_project) from None
    return await _applied(request, sluice, ids, wait)


async def _body(request: Request) -> ComposeBody:
    """Return the body; a JSON object with a member `compose` is no Compose file itself.

    Raises Problem (400 or 422).
    """
    try:
        text = (await read_bytes(request)).decode()
        value = json.loads(text)
    except UnicodeDecodeError:
        raise Problem("bad_request", "body is not UTF-8") from None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "compose" in value:
        return check(ComposeBody, await read_object(request))
    return ComposeBody(compose=text)


def _listed(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _owners(session: Session) -> dict[str, str | None]:
    """Return service → the Compose project whose file defines it, or None, for the services of Sluice."""
    rows = session.exec(
        select(Service, Revision)
        .join(Revision, (col(Revision.service) == Service.name) & (col(Revision.number) == Service.revision), isouter=True)
        .where(col(Service.removed).is_(False))
    )
    return {
        service.name: (revision.effective.get("labels") or {}).get(PROJECT_LABEL) if revision is not None else None
        for service, revision in rows
    }


def _refuse_owned(compose_project: ComposeProject, owners: Mapping[str, str | None], running: Mapping[str, str]) -> None:
    """Refuse services that another project's file defines or that Compose runs itself.

    Raises Problem (422).
    """
    findings = []
    for each in compose_project.services:
        owner = owners.get(each.name) or compose_project.project
        if owner != compose_project.project:
            why = f'a service of this name exists in the project "{owner}"; rename one of them, or set ?project={owner}'
            findings.append(each.node.finding(why))
        if each.name in running:
            stop = f"docker compose stop {each.name}"
            why = f"Compose already runs it as {running[each.name]}; run `{stop}` first, or leave it there"
            findings.append(each.node.finding(f"{why}, by x-sluice: {{manage: false}}"))
    if findings:
        raise _invalid(findings)


def _members(compose_project: ComposeProject, note: str | None) -> list[GroupMember]:
    """Return the members of the group; warnings about the whole file belong to the first deployment."""
    members = []
    for number, each in enumerate(compose_project.services):
        deploy_request = DeployRequest(each.name, each.fields, mode="replace", note=note)
        warnings = [*each.warnings, *(compose_project.warnings if number == 0 else [])]
        members.append(
            GroupMember(deploy_request, each.depends_on, [f"{one.field} ({one.place}) {one.message}" for one in warnings])
        )
    return members


async def _preview(sluice: AppContext, member: GroupMember, by: Actor) -> dict[str, Any]:
    with prefix_fields(member.deploy_request.service):
        preview = asdict(await sluice.dry_run.preview(commands.deploy(member.deploy_request), by))
    warnings = [{"code": "compose", "message": warning} for warning in member.warnings]
    return {**preview, "warnings": [*preview["warnings"], *warnings]}


async def _applied(request: Request, sluice: AppContext, ids: list[int], wait: float | None) -> Response:
    group = (await sluice.store.read(lambda session: session.get_one(Deployment, ids[0]))).group
    answer, headers = {"group": group, "deployments": ids}, {"Location": f"/deployments?group={group}"}
    if not wait:
        return JSONResponse(answer, 202, headers=headers)
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    polls = [DeploymentPoll(sluice, id) for id in ids]
    ended = [await poll.wait_for_end(request, max(end - loop.time(), 0.001)) for poll in polls]
    documents = [await poll.document() for poll in polls]
    for poll, document, has_ended in zip(polls, documents, ended, strict=True):
        if has_ended and document["status"] != Status.SUCCEEDED:
            raise poll.failure(document, headers, group=group)
        if not has_ended:
            raise poll.timeout(document, wait, headers, group=group)
    return JSONResponse(answer, 200, headers=headers)


def _invalid(findings: list[ComposeFinding]) -> Problem:
    """Return the problem 422 `invalid_compose`, each finding with its line."""
    errors = [FieldError(each.field, f"{each.place}: {each.message}") for each in findings]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem("invalid_compose", f"{errors[0].field}: {errors[0].message}{more}"[:1000], errors)


def _located(error: RequestError, compose_project: ComposeProject) -> Exception:
    """Return the errors of a service's spec with their lines in the file."""
    if error.status != 422 or error.code == "idempotency_key_reused":
        return error
    by_name = {service.name: service for service in compose_project.services}
    findings = []
    for each in error.errors:
        name, _, field = each.field.partition(".")
        findings.append(by_name[name].finding_at(field, each.message))
    return _invalid(findings)
