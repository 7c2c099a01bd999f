"""Coming in and going out: by a one-time link, or by a token that is pasted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.auth import cookie_name, cookie_settings, refuse_cross_site
from app.pages import render
from app.pages.viewer import HOME, SIGN_IN, within
from app.problems import Problem
from app.sluice import Sluice

router = APIRouter()
Text = Annotated[str, Form(max_length=1000)]
MAX_FORM = 64 * 1024
"""Bytes: nobody who posts here is known yet."""


@router.get(SIGN_IN)
def sign_in_page(code: str = "", next: str = HOME) -> HTMLResponse:
    """With a link's code the page posts it by itself: what only looks at it, as a chat's preview does, leaves it good."""
    return _page(code=code[:200], after=within(next))


@router.post(SIGN_IN, max_body_size=MAX_FORM)
async def sign_in(request: Request, code: Text = "", token: Text = "", next: Text = HOME) -> Response:
    """A session for the link's or the token's owner, kept in a cookie that no script can read."""
    sluice: Sluice = request.app.state.sluice
    after = within(next)
    try:
        refuse_cross_site(request.headers, request.url.scheme)
    except Problem as problem:
        return _page(after=after, refusal=problem.detail, status=403)
    if not code:
        bearer = sluice.access.bearer(token.strip())
        if bearer is None:
            return _page(after=after, refusal="This token is not known, or was revoked.", status=401)
        code, _ = await sluice.access.make_link(bearer.token)
    cookie = await sluice.access.redeem(code)
    if cookie is None:
        refusal = "This link was used before, or is too old. Make another one with: sluice sign-in"
        return _page(after=after, refusal=refusal, status=401)
    answer = RedirectResponse(after, 303, render.HEADERS)
    answer.set_cookie(cookie_name(sluice), cookie, **cookie_settings(request.url.scheme == "https"))
    return answer


@router.post("/ui/sign-out")
async def sign_out(request: Request) -> Response:
    """Ends the session itself, not only the browser's memory of it; its open streams end as well."""
    sluice: Sluice = request.app.state.sluice
    name = cookie_name(sluice)
    if cookie := request.cookies.get(name):
        await sluice.access.sign_out(cookie)
        sluice.listeners.wake()
    answer = RedirectResponse(SIGN_IN, 303, render.HEADERS)
    answer.delete_cookie(name, path="/")
    return answer


def _page(*, code: str = "", after: str = HOME, refusal: str | None = None, status: int = 200) -> HTMLResponse:
    return render.page("sign_in.html", {"code": code, "next": after, "refusal": refusal, "stream": None}, status)
