"""Builds: an image from an uploaded context, and its log during the build and afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.sse import format_sse_event
from pydantic import StringConstraints
from sqlmodel import Session, col
from starlette.requests import ClientDisconnect

from app.api import schemas
from app.api.context import get_app_context, show
from app.api.deployments import Empty, ServiceFilter
from app.api.examples import BUILD, page_of
from app.api.idempotency import claim_content, earlier_answer, store_answer
from app.api.long_poll import LongPoll
from app.api.params import Cursor, IdempotencyKey, Limit, Number, Wait, decode_cursor, encode_cursor
from app.api.request_body import documented, read
from app.api.responses import ALWAYS, CHANGE, read_responses
from app.api.sse import resume_after, stream_response, wants_stream
from app.auth import Deployer, Reader
from app.authorization import check_deploy_scope
from app.context import AppContext
from app.presenters.builds import BUILDS, present_build
from app.problems import Problem, declared, invalid
from services.builds.build_request import BuildRequest
from services.builds.context import check_context, check_dockerfile, escapes_root
from services.builds.log import numbered
from services.builds.manager import MAX_UNFINISHED_BUILDS, BuildSettings, find_build
from services.rollouts.requests.command import DeployRequest
from services.store.tables import Build
from services.text_forms import SERVICE_NAME

router = APIRouter(prefix="/builds", tags=["builds"])
_TAR_TYPES = ("application/x-tar", "application/tar", "application/gzip", "application/x-gzip")
_RETRY_LATER = {"Retry-After": "10"}
_TAR = {"schema": {"type": "string", "format": "binary"}, "example": "(the bytes of `tar -cz .`)"}
_BODY = {"required": True, "content": dict.fromkeys(("application/x-tar", "application/gzip"), _TAR)}
_LOCATION = {"Location": {"description": "the build", "schema": {"type": "string"}}}
_CREATE_RESPONSES = {
    **read_responses(
        202, schemas.Build, BUILD, *CHANGE, "build_failed", "invalid_context", "unsupported_media_type", "upload_timeout",
        "too_many_builds", "idempotency_key_reused", "stopping", "wait_timeout", description="accepted", headers=_LOCATION,
    ),
    200: read_responses(200, schemas.Build, BUILD, description="with ?wait=: succeeded", headers=_LOCATION)[200],
}  # fmt: skip
_EVENT_EXAMPLE = 'event: line\ndata: {"text": "Step 1/3 : FROM debian:trixie-slim"}\nid: 1\n\n'
_LOG_RESPONSE: dict[str, Any] = {
    "description": "the last MiB of the log, or a stream of events, by Accept",
    "content": {
        "text/plain": {"example": "Step 1/3 : FROM debian:trixie-slim\n"},
        "text/event-stream": {"schema": {"type": "string"}, "example": _EVENT_EXAMPLE},
    },
}


@router.post("", status_code=202, responses=_CREATE_RESPONSES, openapi_extra={"requestBody": _BODY})
async def build(  # noqa: PLR0913 - query parameters
    request: Request,
    caller: Deployer,
    service: Annotated[str, Query(max_length=200, description="service to build for")],
    dockerfile: Annotated[
        str, Query(min_length=1, max_length=500, pattern=r"^[^\x00]+$", description="path of the Dockerfile in the context")
    ] = "Dockerfile",
    target: Annotated[
        str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9_.-]+$", description="stage to build; default: the last one")
    ] = None,
    arg: Annotated[
        list[Annotated[str, StringConstraints(max_length=8000, pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$")]],
        Query(max_length=200, description="NAME=value for an ARG of the Dockerfile; repeatable"),
    ] = [],  # noqa: B006
    wait: Wait = None,
    key: IdempotencyKey = None,
) -> Response:
    """Build an image for a service from a context: the body is a tar or tar.gz."""
    sluice = get_app_context(request)
    if not re.fullmatch(SERVICE_NAME, service):
        raise invalid("service", "must be a DNS label of at most 40 characters that starts with a letter")
    if escapes_root(dockerfile):
        raise invalid("dockerfile", "must be a path inside the context")
    request.state.service = service
    await check_deploy_scope(sluice, caller, DeployRequest(service, {}))
    args = {name: value for name, _, value in (pair.partition("=") for pair in arg)}
    async with _upload(request, sluice) as (context, digest):
        key_claim = claim_content(request, caller, key, digest.encode(), also=f"?{request.url.query}")
        async with earlier_answer(sluice, key_claim) as earlier:
            if earlier is not None:
                id = earlier["build"]
            else:
                limit = sluice.build_manager.settings.context_size
                text = await anyio.to_thread.run_sync(check_context, context, dockerfile, limit)
                await anyio.to_thread.run_sync(check_dockerfile, text, args)
                build_request = BuildRequest(service, context, text, dockerfile, target, args)
                id = await sluice.build_manager.begin(build_request, caller.actor)
                await store_answer(sluice, key_claim, {"build": id})
    return await BuildPoll(sluice, id).respond(request, wait)


@router.get("", responses=read_responses(200, schemas.Builds, page_of(BUILD), *ALWAYS))
async def builds(
    request: Request, _reader: Reader, service: ServiceFilter = None, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """List builds, newest first, without their logs."""
    after = decode_cursor(cursor, int)
    query = BUILDS.order_by(col(Build.id).desc()).limit(limit + 1)
    if service is not None:
        query = query.where(Build.service == service)
    if after is not None:
        query = query.where(col(Build.id) < after[0])

    def page(session: Session) -> dict[str, object]:
        rows = session.exec(query).all()
        more = encode_cursor(rows[limit - 1].id) if len(rows) > limit else None
        return {"items": [present_build(row) for row in rows[:limit]], "next": more}

    return await show(request, page)


@router.get("/{id}", responses=read_responses(200, schemas.Build, BUILD, *ALWAYS, "unknown_build", "stopping"))
async def one_build(request: Request, _reader: Reader, id: Number, wait: Wait = None) -> Response:
    """Show a build; with `?wait=` when it has ended or the wait ran out."""
    sluice = get_app_context(request)
    if wait:
        await BuildPoll(sluice, id).wait_for_end(request, wait)
    return JSONResponse(await _document(sluice, id))


@router.get(
    "/{id}/log", response_class=PlainTextResponse, responses=declared(*ALWAYS, "unknown_build", also={200: _LOG_RESPONSE})
)
async def build_log(request: Request, _reader: Reader, id: Number) -> Response:
    """Show the log of a build.

    With `Accept: text/event-stream` the lines follow one by one as they are written, until the build has ended. The
    number of a line is its id.
    """
    sluice = get_app_context(request)
    if wants_stream(request):
        return await _stream(request, sluice, id, resume_after(request) or 0)
    lines, _ = await _lines(sluice, id, 0)
    return PlainTextResponse("".join(f"{line}\n" for _, line in lines))


@router.post(
    "/{id}/cancel",
    responses=read_responses(200, schemas.Build, BUILD, *CHANGE, "unknown_build", "not_in_that_state"),
    openapi_extra=documented("Empty", required=False, empty={}),
)
async def cancel(request: Request, caller: Deployer, id: Number) -> Response:
    """Cancel a build that is pending or running; its status becomes failed, with the reason `cancelled`."""
    await read(request, Empty)
    sluice = get_app_context(request)
    service = (await sluice.store.read(lambda session: find_build(session, id))).service
    request.state.service = service
    caller.require_service(service)
    await sluice.build_manager.cancel(id, caller.actor)
    return JSONResponse(await _document(sluice, id))


@asynccontextmanager
async def _upload(request: Request, sluice: AppContext) -> AsyncIterator[tuple[Path, str]]:
    """Yield the file of the body and its SHA-256.

    The file is deleted at the end of the block unless a build took it. Raises Problem (408, 413, 415 or 429).
    """
    builds = sluice.build_manager
    if builds.full:
        detail = f"{MAX_UNFINISHED_BUILDS} builds are in progress; retry later, or cancel one"
        raise Problem("too_many_builds", detail, headers=_RETRY_LATER)
    path = builds.settings.directory / f"{uuid.uuid4().hex}.upload"
    builds.sending += 1
    try:
        yield path, await _receive(request, builds.settings, path)
    finally:
        builds.sending -= 1
        path.unlink(missing_ok=True)


async def _receive(request: Request, settings: BuildSettings, path: Path) -> str:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _TAR_TYPES:
        raise Problem("unsupported_media_type", f"body must be a tar: Content-Type: {_TAR_TYPES[0]} or {_TAR_TYPES[2]}")
    too_large = Problem("too_large", f"context is larger than {settings.context_size} bytes (SLUICE_BUILD_CONTEXT_SIZE)")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > settings.context_size:
        raise too_large
    size, digest = 0, hashlib.sha256()
    try:
        async with asyncio.timeout(settings.timeout), await anyio.open_file(path, "xb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.context_size:
                    raise too_large
                digest.update(chunk)
                await file.write(chunk)
    except TimeoutError:
        raise Problem("upload_timeout", f"upload of the context timed out after {settings.timeout:g} s") from None
    except ClientDisconnect:
        raise Problem("bad_request", "upload of the context was interrupted") from None
    except OSError as error:
        raise Problem("store_unavailable", f"context cannot be stored: {error.strerror}") from error
    return digest.hexdigest()


class BuildPoll(LongPoll):
    """A build that has not ended, or one that has."""

    kind = "build"
    stopping = "Sluice is stopping, which cancels the build"

    async def document(self) -> dict[str, Any]:
        return await _document(self._sluice, self._id)

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[asyncio.Event]:
        running = self._sluice.build_manager.running(self._id)
        yield running.ended if running is not None else asyncio.Event()

    async def has_ended(self, changed: asyncio.Event) -> bool:
        return self._sluice.build_manager.running(self._id) is None

    def failure(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> Problem:
        detail = (
            f"build {self._id} of {document['service']} {document['status']} ({document['reason']}): {document['message']}"
        )
        return Problem("build_failed", detail, headers=headers, more={"build": document})


async def _document(sluice: AppContext, id: int) -> dict[str, Any]:
    return await sluice.store.read(lambda session: present_build(find_build(session, id)))


async def _lines(sluice: AppContext, id: int, after: int) -> tuple[list[tuple[int, str]], str]:
    """Return the numbered lines of the log after number `after`, and the build's status."""
    running = sluice.build_manager.running(id)
    row = await sluice.store.read(lambda session: find_build(session, id))
    if running is not None:
        return running.log.after(after), row.status
    return numbered(row.log.split("\n")[:-1], row.log_first, after), row.status


async def _stream(request: Request, sluice: AppContext, id: int, after: int) -> Response:
    """Stream the log's lines after number `after`; the last event is `end` if the build has ended."""
    first, _ = await _lines(sluice, id, after)
    if after and not first and sluice.build_manager.running(id) is None:
        return Response(status_code=204)

    async def messages() -> AsyncGenerator[bytes]:
        last = after
        while True:
            running = sluice.build_manager.running(id)
            changed = running.log.lines_changed.wait() if running is not None else None
            lines, status = await _lines(sluice, id, last)
            if lines:
                last = lines[-1][0]
                yield b"".join(_line_event(number, line) for number, line in lines)
            if changed is None:
                yield format_sse_event(event="end", data_str=json.dumps({"status": status}))
                return
            await changed.wait()

    return stream_response(request, messages)


def _line_event(number: int, line: str) -> bytes:
    return format_sse_event(event="line", id=str(number), data_str=json.dumps({"text": line}, ensure_ascii=False))
