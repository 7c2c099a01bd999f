"""Authorization matrix: every route of the app × every kind of caller. A new route needs a line here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import APIRouter
from sqlmodel import Session
from starlette.types import Message

from app.api import api
from app.pages import pages
from services.auth.tokens import SCOPES, new_token, scope_includes
from services.store.tables import Build
from tests.support.app_fixture import AppFixture, build, living

Kind = Literal["open", "api", "page", "stream", "form"]
"""The answer to an unauthenticated caller: served (open), 401 (api, stream), or the sign-in page (page, form)."""
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class RouteCase:
    """A route: `scope` is the least one needed (None is any), `bound` changes the service `web`, `at` fills the path."""

    kind: Kind
    scope: str | None = "read"
    bound: bool = False
    body: dict[str, Any] | None = None
    form: str = ""
    query: str = ""
    at: dict[str, str] = field(default_factory=dict)


def _api(scope: str | None = "read", **more: Any) -> RouteCase:
    return RouteCase("api", scope, **more)


def _changes(scope: str = "deploy", **more: Any) -> RouteCase:
    return RouteCase("api", scope, bound=True, **more)


WEB, INSTANCE, FIRST = {"name": "web"}, {"name": "web-r1-1"}, {"id": "1"}
DOORS: dict[tuple[str, str], RouteCase] = {
    ("GET", "/"): RouteCase("open"),
    ("GET", "/healthz"): RouteCase("open"),
    ("GET", "/readyz"): RouteCase("open"),
    ("GET", "/openapi.json"): _api(None),
    ("GET", "/docs"): _api(None),
    ("GET", "/version"): _api(),
    ("GET", "/registry"): _api(),
    ("GET", "/metrics"): _api(),
    ("GET", "/deployments"): _api(),
    ("POST", "/deployments"): _changes(body={"service": "web", "image": "web:1"}),
    ("POST", "/apply"): _changes("write", body={"compose": "name: shop\nservices: {web: {image: 'web:1'}}"}),
    ("GET", "/builds"): _api(),
    ("POST", "/builds"): _changes(query="service=web"),
    ("GET", "/builds/{id}"): _api(at=FIRST),
    ("GET", "/builds/{id}/log"): _api(at=FIRST),
    ("POST", "/builds/{id}/cancel"): _changes(at=FIRST),
    ("GET", "/deployments/{id}"): _api(at=FIRST),
    ("GET", "/deployments/{id}/events"): _api(at=FIRST),
    ("POST", "/deployments/{id}/retry"): _changes(at=FIRST),
    ("POST", "/deployments/{id}/pause"): _changes(at=FIRST),
    ("POST", "/deployments/{id}/resume"): _changes(at=FIRST),
    ("POST", "/deployments/{id}/abort"): _changes(at=FIRST),
    ("GET", "/services"): _api(),
    ("GET", "/services/{name}"): _api(at=WEB),
    ("GET", "/services/{name}/logs"): _api(at=WEB),
    ("GET", "/services/{name}/figures"): _api(at=WEB),
    ("GET", "/services/{name}/revisions"): _api(at=WEB),
    ("GET", "/services/{name}/revisions/{n}"): _api(at={**WEB, "n": "1"}),
    ("GET", "/services/{name}/revisions/{n}/diff"): _api(at={**WEB, "n": "1"}),
    ("POST", "/services/{name}/scale"): _changes(at=WEB, body={"replicas": 1}),
    ("POST", "/services/{name}/rollback"): _changes(at=WEB),
    ("POST", "/services/{name}/restart"): _changes(at=WEB),
    ("DELETE", "/services/{name}"): _changes("write", at=WEB),
    ("GET", "/instances"): _api(),
    ("GET", "/instances/{name}"): _api(at=INSTANCE),
    ("GET", "/instances/{name}/logs"): _api(at=INSTANCE),
    ("GET", "/events"): _api(),
    ("GET", "/audit"): _api(),
    ("GET", "/tokens"): _api("admin"),
    ("POST", "/tokens"): _api("admin", body={"name": "one more", "scope": "read"}),
    ("DELETE", "/tokens/{id}"): _api("admin", at={"id": "999"}),
    ("POST", "/sign-in-links"): _api(),
    ("GET", "/gateway"): _api(),
    ("GET", "/doctor"): _api(),
    ("POST", "/gateway/upgrade"): _api("admin"),
    ("GET", "/ui/static/{path:path}"): RouteCase("open", at={"path:path": "mark.svg"}),
    ("GET", "/ui/sign-in"): RouteCase("open"),
    ("POST", "/ui/sign-in"): RouteCase("open"),
    ("POST", "/ui/sign-out"): RouteCase("open"),
    ("GET", "/ui"): RouteCase("open"),
    ("GET", "/ui/"): RouteCase("page"),
    ("GET", "/ui/stream"): RouteCase("stream"),
    ("GET", "/ui/new"): RouteCase("page", "write"),
    ("POST", "/ui/new"): RouteCase("form", "write", True, form="step=do&name=web&image=web:1"),
    ("GET", "/ui/services/{name}"): RouteCase("page", at=WEB),
    ("GET", "/ui/services/{name}/stream"): RouteCase("stream", at=WEB),
    ("GET", "/ui/services/{name}/changes"): RouteCase("page", at=WEB),
    ("GET", "/ui/services/{name}/{kind}"): RouteCase("page", "deploy", True, at={**WEB, "kind": "restart"}),
    ("POST", "/ui/services/{name}/{kind}"): RouteCase("form", "deploy", True, at={**WEB, "kind": "restart"}),
    ("GET", "/ui/services/{name}/logs"): RouteCase("page", at=WEB),
    ("GET", "/ui/instances/{id}/logs"): RouteCase("page", at={"id": "web-r1-1"}),
    ("GET", "/ui/builds/{id}"): RouteCase("page", at=FIRST),
    ("GET", "/ui/builds/{id}/stream"): RouteCase("stream", at=FIRST),
    ("POST", "/ui/builds/{id}/cancel"): RouteCase("form", "deploy", True, at=FIRST),
    ("GET", "/ui/history"): RouteCase("page"),
    ("GET", "/ui/audit"): RouteCase("page"),
    ("GET", "/ui/registry"): RouteCase("page"),
    ("GET", "/ui/tokens"): RouteCase("page"),
    ("POST", "/ui/tokens"): RouteCase("form", "admin"),
    ("POST", "/ui/tokens/{id}/revoke"): RouteCase("form", "admin", at={"id": "999"}),
    ("GET", "/ui/deployments/{id}"): RouteCase("page", at=FIRST),
    ("GET", "/ui/deployments/{id}/stream"): RouteCase("stream", at=FIRST),
    ("POST", "/ui/deployments/{id}/{action}"): RouteCase("form", "deploy", True, at={**FIRST, "action": "pause"}),
}


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def code(self) -> Any:
        json_like = self.headers.get("content-type", "").startswith("application/problem+json")
        return json.loads(self.body)["code"] if json_like else None


@dataclass(frozen=True)
class AuthorizationHarness:
    """A Sluice that serves `web`, and the headers of every kind of caller."""

    app_fixture: AppFixture
    callers: dict[str, dict[str, str]]

    def send_as(self, method: str, path: str, route_case: RouteCase, headers: dict[str, str]) -> Answer:
        for name, value in route_case.at.items():
            path = path.replace(f"{{{name}}}", value)
        if route_case.kind == "open" and method == "POST" and "origin" not in headers:
            headers = {"sec-fetch-site": "same-origin", **headers}  # as a browser sends it from Sluice's own pages
        answer: Answer = self.app_fixture.call(_ask, self.app_fixture.app, method, path, headers, route_case)
        return answer


async def _ask(app: Any, method: str, path: str, headers: dict[str, str], route_case: RouteCase) -> Answer:
    """Send a request directly to the app; return as soon as a stream has begun."""
    answer, enough, asked = Answer(), asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {
            "type": "http.request",
            "body": json.dumps(route_case.body).encode() if route_case.body is not None else route_case.form.encode(),
            "more_body": False,
        }

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                enough.set()
        else:
            answer.body += message.get("body", b"")

    sent = {"host": "sluice.test", "content-type": FORM if route_case.form else "application/json", **headers}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": route_case.query.encode(), "root_path": "", "client": ("192.0.2.1", 1),
        "server": ("sluice.test", 80), "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "state": {}, "app": app,
    }  # fmt: skip
    whole, begun = asyncio.ensure_future(app(scope, receive, send)), asyncio.ensure_future(enough.wait())
    await asyncio.wait({whole, begun}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    for task in (whole, begun):
        task.cancel()
    await asyncio.gather(whole, begun, return_exceptions=True)
    return answer


def _cookie(value: str) -> dict[str, str]:
    return {"cookie": f"sluice_session_sluice={value}"}


def _build_of_web(session: Session) -> None:
    made = Build(
        service="web", status="succeeded", image="web:built", dockerfile="Dockerfile", created_by_kind="system",
        created_by_name="sluice", created_at=0,
    )  # fmt: skip
    session.add(made)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationHarness]:
    data: Path = tmp_path_factory.mktemp("matrix")
    with living(build(data)) as app_fixture:
        assert app_fixture.deploy("web").status_code == 200
        app_fixture.call(app_fixture.sluice.store.write, _build_of_web)
        access = app_fixture.sluice.auth

        def lower(headers: dict[str, str]) -> dict[str, str]:
            return {name.lower(): value for name, value in headers.items()}

        def session(token: dict[str, str]) -> str:
            made: str = app_fixture.call(partial(access.sign_in, token=token["authorization"].partition(" ")[2]))
            return made

        callers = {scope: lower(app_fixture.as_scope(scope)) for scope in SCOPES}
        revoked = lower(app_fixture.as_scope("admin", expires_in="1h"))
        newest = app_fixture.client.get("/tokens").json()["items"][0]["id"]
        ended = session(callers["admin"])
        of_revoked = session(revoked)
        app_fixture.client.delete(f"/tokens/{newest}")
        app_fixture.call(access.sign_out, ended)
        same = {"sec-fetch-site": "same-origin"}
        callers |= {
            "no token": {},
            "garbage": {"authorization": "Basic é:\x7f"},
            "unknown token": {"authorization": f"Bearer {new_token()}"},
            "expired token": lower(app_fixture.as_scope("admin", expires_in=0.001)),
            "revoked token": revoked,
            "ended session": {**_cookie(ended), **same},
            "session of a revoked token": {**_cookie(of_revoked), **same},
            "bound to another": lower(app_fixture.as_scope("write", services=["api", "webb*"])),
            "bound to this": lower(app_fixture.as_scope("write", services=["we*"])),
            "session": {**_cookie(session(callers["admin"])), **same},
            "session of a reader": {**_cookie(session(callers["read"])), **same},
            "session, cross-site's page": {**_cookie(session(callers["admin"])), "sec-fetch-site": "cross-site"},
            "session, cross-site's page, old browser": {
                **_cookie(session(callers["admin"])), "origin": "http://evil.test",
            },
        }  # fmt: skip
        yield AuthorizationHarness(app_fixture, callers)


SCOPE_OF = {
    **{scope: scope for scope in SCOPES}, "bound to another": "write", "bound to this": "write", "session": "admin",
    "session of a reader": "read", "session, cross-site's page": "admin",
    "session, cross-site's page, old browser": "admin",
}  # fmt: skip


def _expected(method: str, route_case: RouteCase, caller: str) -> str:
    foreign, changes = "cross-site" in caller, method != "GET"
    if foreign and changes:
        return "cross-site"
    if route_case.kind == "open":
        return "in"
    if caller not in SCOPE_OF:
        return {"api": "401", "stream": "401", "page": "sign-in", "form": "sign-in"}[route_case.kind]
    allowed = route_case.scope is None or scope_includes(SCOPE_OF[caller], route_case.scope)
    return "in" if allowed and not (route_case.bound and caller == "bound to another") else "403"


def _was(answer: Answer) -> str:
    if answer.status == 403:
        return "cross-site" if answer.code == "cross_site" or b"cross-site" in answer.body else "403"
    if answer.status == 303 and answer.headers["location"].startswith("/ui/sign-in?next=%2Fui%2F"):
        return "sign-in"
    return "401" if answer.status == 401 and answer.code != "not_found" else "in"


def _routes(router: APIRouter) -> Iterator[tuple[str, str]]:
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from _routes(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})  # type: ignore[attr-defined]


def test_routes_and_lines_of_the_matrix_correspond(harness: AuthorizationHarness) -> None:
    own = {("GET", str(getattr(route, "path"))) for route in harness.app_fixture.app.routes if hasattr(route, "path")}  # noqa: B009
    assert {*_routes(api), *_routes(pages), *own} == DOORS.keys()


def _place(route_case: tuple[str, str]) -> tuple[bool, str, str]:
    """Sort routes by path, with the removing ones last."""
    return route_case[0] == "DELETE", route_case[1], route_case[0]


_IN_ORDER = sorted(DOORS, key=_place)


@pytest.mark.parametrize(("method", "path"), _IN_ORDER)
def test_caller_of_each_kind_gets_the_expected_answer_of_the_route(
    harness: AuthorizationHarness, method: str, path: str
) -> None:
    route_case = DOORS[method, path]
    reported = {}
    for caller, headers in harness.callers.items():
        if (method, path) == ("POST", "/ui/sign-out") and "session" in caller and "site" not in caller:
            continue  # signing out would end the session that the other routes are tried with
        answer = harness.send_as(method, path, route_case, headers)
        assert answer.status < 500, f"{caller}: {answer}"
        if (method, path) == ("POST", "/ui/sign-in") and answer.status in (401, 429):
            reported[caller] = "in"  # the form has been read, and holds no token
        else:
            reported[caller] = _was(answer)
    assert reported == {caller: _expected(method, route_case, caller) for caller in reported}


def test_pages_have_no_inline_script_or_style_and_send_a_content_security_policy(harness: AuthorizationHarness) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    looked_at = 0
    for (method, path), route_case in DOORS.items():
        answer = harness.send_as(method, path, route_case, harness.callers["session"]) if method == "GET" else Answer()
        assert method != "GET" or answer.headers["x-content-type-options"] == "nosniff", path
        if answer.headers.get("content-type", "").startswith("text/html"):
            text = answer.body.decode()
            assert answer.headers["content-security-policy"] == policy, path
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|hx-on|hx-vals=.js", text), (
                path
            )
            looked_at += 1
        elif answer.status and not path.startswith("/ui/"):
            assert answer.headers["content-security-policy"].startswith("default-src 'none'"), path
    assert looked_at >= 10


def test_refused_change_by_a_known_caller_is_audited(harness: AuthorizationHarness) -> None:
    """The audit event names the actor, the request, the client address and the token."""
    client = harness.app_fixture.client
    for (method, path), route_case in DOORS.items():
        if method == "GET" or route_case.kind == "open" or not scope_includes(route_case.scope or "read", "deploy"):
            continue
        harness.send_as(method, path, route_case, harness.callers["read"])
        event = client.get("/audit?limit=1").json()["items"][0]
        assert event["type"] == "refused", path
        assert (event["actor"]["name"], event["remote"], event["data"]["code"]) == (
            "read 0",
            "192.0.2.1",
            "insufficient_scope",
        )
        assert event["token"] is not None
        assert event["data"]["method"] == method
