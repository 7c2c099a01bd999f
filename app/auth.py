"""Authentication by token or session cookie, before the body is read, and scope checks."""

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
from services.actor import Actor
from services.auth.access import Principal
from services.auth.tokens import scope_includes

OPEN = frozenset({"/", "/healthz", "/readyz", "/ui/sign-in"})
UNAUTHENTICATED_PREFIX = "/ui/static/"
PAGES = "/ui/"
REFERENCE = "/docs"
"""Page for browsers: without a token, only requests that do not accept HTML get 401."""


@dataclass(frozen=True)
class Caller:
    """An authenticated caller and its client address."""

    principal: Principal
    remote: str | None

    @property
    def actor(self) -> Actor:
        return self.principal.actor(self.remote)

    def may(self, scope: str) -> bool:
        return scope_includes(self.principal.scope, scope)

    def require(self, scope: str) -> None:
        """Raise Problem (403) unless the scope allows `scope`."""
        if not self.may(scope):
            detail = f'the scope "{scope}" is needed; the token "{self.principal.name}" has "{self.principal.scope}"'
            raise Problem("insufficient_scope", detail)

    def require_service(self, service: str) -> None:
        """Raise Problem (403) if the token is bound to services without `service`."""
        if not self.principal.allows_service(service):
            bound = ", ".join(self.principal.services or ())
            detail = f'the token "{self.principal.name}" may change {bound} only'
            raise Problem("insufficient_scope", detail)


class Authentication:
    """ASGI middleware that sets `request.state.caller`, or answers 401 before the body is read.

    A session's change that a page of another site asks for gets 403. Dashboard pages pass without a caller: they
    redirect to the sign-in page.
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
        if (
            caller is not None
            or path in OPEN
            or path.startswith(UNAUTHENTICATED_PREFIX)
            or (path + "/").startswith(PAGES)
            or browsing
        ):
            await self.app(scope, receive, send)
            return
        detail = "unknown, expired or revoked token" if "authorization" in connection.headers else "missing token"
        refused = Problem("unauthenticated", f"{detail}: Authorization: Bearer sl_…", headers={"WWW-Authenticate": "Bearer"})
        await refused.response()(scope, receive, send)


async def identify(connection: HTTPConnection) -> Caller | None:
    """Return the caller; None if the credentials are missing or not valid.

    The Authorization header is used if present, else the session cookie.
    """
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
    """Return the name of the session cookie.

    All ports of a host share its cookies, so the name contains the name of this Sluice: a second one may run on the
    host. The prefix `__Host-` over HTTPS makes the browser accept the cookie from this host alone, and not from a page
    loaded over HTTP.
    """
    name = f"sluice_session_{sluice.settings.name}"
    return f"__Host-{name}" if scheme == "https" else name


def cookie_settings(secure: bool) -> dict[str, Any]:
    """Return the attributes of the session cookie; `secure` is true if the page came over HTTPS."""
    return {"httponly": True, "samesite": "lax", "secure": secure, "path": "/", "max_age": 24 * 3600}


def refuse_cross_site(headers: Mapping[str, str], scheme: str) -> None:
    """Raise Problem (403 `cross_site`) if a page of another site sends a change with the viewer's cookie."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        allowed = headers.get("origin") == f"{scheme}://{headers.get('host')}"
    if not allowed:
        raise Problem("cross_site", "cross-site request, or a browser that does not send its origin")


def require_scope(scope: str) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency that resolves to the caller and requires `scope`."""

    async def check(request: Request, _documented: Annotated[Any, Depends(_BEARER)]) -> Caller:
        caller: Caller | None = request.state.caller
        if caller is None:
            raise Problem("unauthenticated", "missing token: Authorization: Bearer sl_…")
        caller.require(scope)
        return caller

    return check


_BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="`sl_…`, printed at the first start")
Reader = Annotated[Caller, Depends(require_scope("read"))]
Deployer = Annotated[Caller, Depends(require_scope("deploy"))]
Writer = Annotated[Caller, Depends(require_scope("write"))]
Admin = Annotated[Caller, Depends(require_scope("admin"))]
