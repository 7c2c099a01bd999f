"""Who calls: a token or a session's cookie, checked before anything of the request is read; and what scopes allow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.audit import SAFE, note_refusal
from app.context import AppContext
from app.problems import Problem
from services.auth.access import Principal
from services.auth.tokens import scope_includes
from services.caller import Actor

OPEN = frozenset({"/", "/healthz", "/readyz", "/ui/sign-in"})
OPEN_BELOW = "/ui/static/"
PAGES = "/ui/"
REFERENCE = "/docs"
"""A page for browsers; what asks without wanting HTML is told 401, as everywhere in the API."""


@dataclass(frozen=True)
class Caller:
    """Somebody who was let in, and from where."""

    principal: Principal
    remote: str | None

    @property
    def actor(self) -> Actor:
        return self.principal.actor(self.remote)

    def may(self, scope: str) -> bool:
        return scope_includes(self.principal.scope, scope)

    def require(self, scope: str) -> None:
        """403 unless the scope allows it."""
        if not self.may(scope):
            detail = f'this needs the scope "{scope}"; the token "{self.principal.name}" has "{self.principal.scope}"'
            raise Problem("insufficient_scope", detail)

    def require_service(self, service: str) -> None:
        """403 when the token is bound to other services."""
        if not self.principal.allows_service(service):
            bound = ", ".join(self.principal.services or ())
            detail = f'the token "{self.principal.name}" may change {bound} only'
            raise Problem("insufficient_scope", detail)


class Authentication:
    """ASGI middleware: sets `request.state.caller`, or answers 401 (403 across sites) before the body is read.

    Pages that nobody has signed in for lead to the sign-in page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        path = scope["path"]
        connection.state.caller = caller = await identify(connection)
        if caller is not None and caller.principal.kind == "session" and scope["method"] not in SAFE:
            try:
                refuse_cross_site(connection.headers, scope["scheme"])
            except Problem as problem:
                await note_refusal(Request(scope), 403, problem.code, problem.detail)
                await problem.response()(scope, receive, send)
                return
        browsing = path == REFERENCE and "text/html" in connection.headers.get("accept", "")
        if caller is not None or path in OPEN or path.startswith(OPEN_BELOW) or (path + "/").startswith(PAGES) or browsing:
            await self.app(scope, receive, send)
            return
        detail = "the token is not known, or was revoked" if "authorization" in connection.headers else "a token is needed"
        refused = Problem("unauthenticated", f"{detail}: Authorization: Bearer sl_…", headers={"WWW-Authenticate": "Bearer"})
        await refused.response()(scope, receive, send)


async def identify(connection: HTTPConnection) -> Caller | None:
    """By the Authorization header, else by the session's cookie; None when neither is good."""
    sluice: AppContext = connection.app.state.sluice
    remote = connection.client.host if connection.client else None
    header = connection.headers.get("authorization")
    if header is not None:
        kind, _, secret = header.partition(" ")
        principal = sluice.auth.principal(secret.strip()) if kind.lower() == "bearer" else None
    else:
        cookie = connection.cookies.get(cookie_name(sluice, connection.scope["scheme"]))
        principal = await sluice.auth.session(cookie) if cookie and len(cookie) <= 256 else None
    return Caller(principal, remote) if principal is not None else None


def cookie_name(sluice: AppContext, scheme: str) -> str:
    """Cookies of one host are shared by its ports: a second Sluice beside this one needs a name of its own. Over HTTPS the
    browser takes one of this name from this very host alone, and from no page that came by HTTP."""
    name = f"sluice_session_{sluice.settings.name}"
    return f"__Host-{name}" if scheme == "https" else name


def cookie_settings(secure: bool) -> dict[str, Any]:
    """How the session's cookie is set; `secure` where the page came by HTTPS."""
    return {"httponly": True, "samesite": "lax", "secure": secure, "path": "/", "max_age": 24 * 3600}


def refuse_cross_site(headers: Mapping[str, str], scheme: str) -> None:
    """403 `cross_site` for a change that another site's page asks for with our visitor's cookie."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        allowed = headers.get("origin") == f"{scheme}://{headers.get('host')}"
    if not allowed:
        raise Problem("cross_site", "a page of another site asked for this, or the browser does not say which did")


def needs(scope: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, whose scope allows `scope`."""

    async def check(request: Request, _documented: Annotated[Any, Depends(_BEARER)]) -> Caller:
        caller: Caller | None = request.state.caller
        if caller is None:
            raise Problem("unauthenticated", "a token is needed: Authorization: Bearer sl_…")
        caller.require(scope)
        return caller

    return check


_BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="`sl_…`, as the first start printed it")
Reader = Annotated[Caller, Depends(needs("read"))]
Deployer = Annotated[Caller, Depends(needs("deploy"))]
Writer = Annotated[Caller, Depends(needs("write"))]
Admin = Annotated[Caller, Depends(needs("admin"))]
