"""Sign-in by one-time link or pasted token, and sign-out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.auth import cookie_name, cookie_settings, refuse_cross_site
from app.context import AppContext
from app.pages import render
from app.pages.dependencies import HOME, SIGN_IN, within
from app.problems import Problem

router = APIRouter()
Text = Annotated[str, Form(max_length=1000)]
MAX_FORM = 64 * 1024
"""Bytes of a form; the limit is low because the sender is not authenticated yet."""


@router.get(SIGN_IN)
def sign_in_page(code: str = "", next: str = HOME) -> HTMLResponse:  # noqa: A002 - a query parameter
    """Show the sign-in page; the page itself posts the code of a link.

    A client that only fetches the page, such as the link preview of a chat, does not use up the code.
    """
    return _page(code=code[:200], after=within(next))


@router.post(SIGN_IN, max_body_size=MAX_FORM)
async def sign_in(
    request: Request, code: Text = "", token: Text = "", next: Text = HOME  # noqa: A002 - a field of the form
) -> Response:  # fmt: skip
    """Start a session for the owner of the link or token, in a cookie that scripts cannot read."""
    sluice: AppContext = request.app.state.sluice
    after = within(next)
    try:
        refuse_cross_site(request.headers, request.url.scheme)
    except Problem as problem:
        return _page(after=after, error=problem.detail, status=403)
    remote = request.client.host if request.client else None
    if pause := sluice.auth.attempts.wait(remote):
        minutes = math.ceil(pause / 60)
        error = f"Too many attempts from your address; try again in {minutes} min."
        return _page(after=after, error=error, status=429, headers={"Retry-After": str(math.ceil(pause))})
    cookie = await sluice.auth.sign_in(code=code, token=token.strip(), remote=remote)
    sluice.notifier.notify()
    if cookie is None and code:
        error = "Used or expired link. Create another one with: sluice sign-in"
        return _page(after=after, error=error, status=401)
    if cookie is None:
        return _page(after=after, wrong="Unknown, expired or revoked token.", status=401)
    response = RedirectResponse(after, 303, render.HEADERS)
    scheme = request.url.scheme
    response.set_cookie(cookie_name(sluice, scheme), cookie, **cookie_settings(scheme == "https"))
    return response


@router.post("/ui/sign-out", max_body_size=MAX_FORM)
async def sign_out(request: Request, everywhere: Annotated[bool, Form()] = False) -> Response:
    """End the session itself, or all sessions of its token, and delete the cookie.

    Open streams end too.
    """
    sluice: AppContext = request.app.state.sluice
    scheme = request.url.scheme
    name = cookie_name(sluice, scheme)
    if cookie := request.cookies.get(name):
        caller = request.state.caller
        await sluice.auth.sign_out(cookie, everywhere=everywhere, remote=caller.remote if caller else None)
        sluice.notifier.notify()
    response = RedirectResponse(SIGN_IN, 303, render.HEADERS)
    response.delete_cookie(name, path="/", secure=scheme == "https")
    return response


def _page(
    *,
    code: str = "",
    after: str = HOME,
    error: str | None = None,
    wrong: str | None = None,
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> HTMLResponse:
    """Return the sign-in page; `wrong` is the error beside the token's field."""
    errors = {"token": wrong} if wrong else {}
    context = {"code": code, "next": after, "refusal": error, "errors": errors, "stream": None}
    response = render.page("sign_in.html", context, status)
    response.headers.update(headers)
    return response
