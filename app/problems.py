"""Errors as RFC 9457 problems: the codes, their responses and their declaration on routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.audit import note_refusal
from services.engine.port import EngineError
from services.errors import FieldError, RequestError, field_path
from services.rollouts.requests.spec_errors import humanize
from services.rollouts.state.status import InvalidTransition
from services.suggestions import did_you_mean

log = structlog.get_logger(__name__)
MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "malformed request"),
    "unauthenticated": (401, "missing token: Authorization: Bearer sl_…"),
    "insufficient_scope": (403, 'the scope "write" is needed; the token "ci" has "deploy"'),
    "cross_site": (403, "cross-site request"),
    "not_found": (404, "not found"),
    "unknown_service": (404, 'service "web" not found'),
    "unknown_deployment": (404, "deployment 17 not found"),
    "unknown_instance": (404, 'instance "web-r4-1" not found'),
    "revision_not_found": (404, "web has no revision 3"),
    "unknown_build": (404, "build 5 not found"),
    "unknown_token": (404, "token 3 not found"),
    "logs_gone": (410, "the container of web-r4-1 was removed, and its log with it"),
    "method_not_allowed": (405, "method not allowed; allowed: GET, HEAD"),
    "deployment_failed": (409, "deployment 17 of web rolled_back (unhealthy_instance): web-r4-1 answered 500"),
    "deployment_aborted": (409, "deployment 17 of web aborted (user)"),
    "deployment_superseded": (409, "deployment 17 of web superseded (newer_revision): deployment 18 took over"),
    "deployment_paused": (409, "deployment 17 of web paused (unhealthy_instance): resume or abort"),
    "deployment_in_progress": (409, "deployment 16 of web is progressing, and on_conflict is reject"),
    "build_failed": (409, "build 5 of web failed (build_failed): the command returned a non-zero code: 1"),
    "revision_conflict": (409, "expected revision 3, but web is at revision 4"),
    "not_in_that_state": (409, "deployment is succeeded: pause not possible; allowed: none"),
    "never_deployed": (409, 'no deployment of "web" has succeeded yet; deploy it first'),
    "no_rollback_target": (409, "no earlier revision of web has served"),
    "upgrade_in_progress": (409, "an upgrade of the gateway is in progress"),
    "last_admin_token": (409, '"admin" is the last admin token; create another one first'),
    "upload_timeout": (408, "upload of the context timed out after 1800 s"),
    "too_large": (413, "body is larger than 1048576 bytes"),
    "unsupported_media_type": (415, "body must be a tar: Content-Type: application/x-tar"),
    "invalid": (422, "replicas: must be a whole number"),
    "invalid_spec": (422, 'replcas: unknown field; did you mean "replicas"?'),
    "invalid_compose": (422, "services.web.cap_add: line 12: not supported on Sluice's containers"),
    "invalid_context": (422, 'the context has no "Dockerfile"; ?dockerfile= names another one'),
    "redacted_value": (422, 'environment.DB_PASSWORD: is "***", which stands for a hidden secret'),
    "unknown_revision": (422, "cannot roll web back to revision 3; available: 4, 2"),
    "idempotency_key_reused": (422, "this Idempotency-Key was used for another request"),
    "too_many_builds": (429, "20 builds are in progress; retry later, or cancel one"),
    "internal": (500, "internal error; see Sluice's log"),
    "engine_error": (502, "the engine refused: …"),
    "gateway_upgrade_failed": (502, "the new gateway exited at its start; the old one serves"),
    "engine_unavailable": (503, "the engine does not answer"),
    "not_ready": (503, "gateway: no answer"),
    "store_unavailable": (503, "store cannot be written: database or disk is full"),
    "stopping": (503, "Sluice is stopping; retry"),
    "wait_timeout": (504, "deployment 17 of web is still progressing after 50 s"),
}
"""Code → status, and an example of `detail` for the documentation."""

CODE_OF_STATUS = {
    400: "bad_request", 401: "unauthenticated", 403: "insufficient_scope", 404: "not_found", 405: "method_not_allowed",
    413: "too_large", 422: "invalid",
}  # fmt: skip


class FieldProblem(BaseModel):
    """A field that is wrong."""

    field: str
    message: str


class ProblemShape(BaseModel):
    """An RFC 9457 problem, as application/problem+json."""

    type: str = Field(description="urn:sluice:problem:<code>")
    title: str
    status: int
    detail: str
    code: str = Field(description="stable code for programs")
    errors: list[FieldProblem] | None = Field(default=None, description="the invalid fields; on 422")
    deployment: dict[str, Any] | None = Field(default=None, description="the deployment that the request waited for")
    build: dict[str, Any] | None = Field(default=None, description="the build that the request waited for")


@dataclass
class Problem(Exception):
    """An error response: `code` is one of CODES, `more` holds further members of the body."""

    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None

    def __str__(self) -> str:
        return self.detail

    def body(self) -> dict[str, Any]:
        status = self.status or CODES[self.code][0]
        body: dict[str, Any] = {
            "type": f"urn:sluice:problem:{self.code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            body["errors"] = [{"field": error.field, "message": error.message} for error in self.errors]
        return {**body, **self.more}

    def response(self) -> Response:
        status = self.status or CODES[self.code][0]
        return JSONResponse(self.body(), status, headers=dict(self.headers), media_type=MEDIA_TYPE)


def declared(*codes: str, also: Mapping[int | str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with `codes`, each with an example.

    `also` holds the route's other responses.
    """
    answers: dict[int | str, dict[str, Any]] = dict(also or {})
    for code in sorted(codes, key=lambda code: CODES[code][0]):
        status, detail = CODES[code]
        example = Problem(code, detail, [FieldError("replicas", "must be a whole number")] if status == 422 else ())
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
        answer = answers.setdefault(status, {"description": HTTPStatus(status).phrase, "content": content})
        answer["content"][MEDIA_TYPE]["examples"][code] = {"value": example.body()}
    return answers


def invalid(field: str, message: str) -> Problem:
    """Return a 422 problem for one field."""
    return Problem("invalid", f"{field}: {message}"[:1000], [FieldError(field, message)])


def unknown_field_message(name: str, known: Sequence[str]) -> str:
    """Return the message for an unknown field name, with the nearest known name as a suggestion."""
    return "unknown field" + did_you_mean(name, known)


def install(app: FastAPI, page: Callable[[Problem], Response] | None = None) -> None:
    """Turn every error of a route into a problem, and record refused changes in the audit.

    `page` renders the problem as HTML, for browsers that ask for one of the dashboard's pages.
    """

    def render(request: Request, problem: Problem) -> Response:
        for_browser = request.url.path.startswith("/ui/") and "text/html" in request.headers.get("accept", "")
        return page(problem) if page is not None and for_browser else problem.response()

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code < 400:
            return Response(status_code=error.status_code, headers=error.headers)
        problem = _method_not_allowed(request) if getattr(error, "status_code", None) == 405 else as_problem(error)
        await note_refusal(request, problem.status or CODES[problem.code][0], problem.code, problem.detail)
        return render(request, problem)

    async def crash(request: Request, error: Exception) -> Response:
        log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
        return render(request, Problem("internal", "internal error; see Sluice's log"))

    for kind in (
        Problem,
        RequestError,
        InvalidTransition,
        RequestValidationError,
        HTTPException,
        EngineError,
        OperationalError,
    ):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, crash)


def as_problem(error: Exception) -> Problem:
    """Return the problem that answers `error`."""
    match error:
        case Problem():
            return error
        case RequestError():
            return Problem(error.code, error.detail, error.errors, status=error.status)
        case InvalidTransition():
            return Problem("not_in_that_state", str(error))
        case RequestValidationError():
            errors = [FieldError(_parameter_path(each), humanize(each)) for each in error.errors()]
            return Problem("invalid", "; ".join(f"{each.field}: {each.message}" for each in errors)[:1000], errors)
        case EngineError():
            code = "engine_unavailable" if error.transient else "engine_error"
            return Problem(code, str(error)[:1000], headers={"Retry-After": "5"} if error.transient else {})
        case OperationalError():
            log.error("store failed", error=str(error.orig))
            return Problem("store_unavailable", f"store unavailable: {error.orig}"[:300], headers={"Retry-After": "5"})
        case HTTPException():
            code = CODE_OF_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
            headers = dict(error.headers or {})
            details = {404: "not found", 413: "body is too large"}
            return Problem(
                code, details.get(error.status_code, str(error.detail)), headers=headers, status=error.status_code
            )
    return Problem("internal", "internal error; see Sluice's log")


def _method_not_allowed(request: Request) -> Problem:
    """Return a 405 problem with the methods that all routes of this path allow together.

    The framework names only the methods of the first route.
    """
    allowed = ", ".join(method for method in METHODS if _is_allowed(request, method))
    return Problem("method_not_allowed", f"method not allowed; allowed: {allowed}", headers={"Allow": allowed})


def _is_allowed(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _parameter_path(error: Mapping[str, Any]) -> str:
    """Return a parameter's path, such as `Idempotency-Key`, without query, header, path or body."""
    place, *location = error["loc"]
    return field_path(location, default=str(place))
