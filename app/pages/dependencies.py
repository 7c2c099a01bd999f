"""Who looks at a page: found by app.auth, led to the sign-in page when there is nobody."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request

from app.auth import REFERENCE, Caller

SIGN_IN = "/ui/sign-in"
HOME = "/ui/"


def sign_in_address(after: str) -> str:
    """The sign-in page that leads on to `after`."""
    return f"{SIGN_IN}?next={quote(after, safe='')}"


def within(address: str) -> str:
    """`address` when it is one of the dashboard's own, else its first page: a link must not lead to another site."""
    if address == REFERENCE:
        return address
    harmless = address.startswith(HOME) and address.isascii() and address.isprintable() and "\\" not in address
    return address if harmless and not address.startswith(SIGN_IN) and len(address) <= 500 else HOME


def _page_viewer(request: Request) -> Caller:
    caller: Caller | None = request.state.caller
    if caller is None:
        query = f"?{request.url.query}" if request.url.query else ""
        raise HTTPException(303, headers={"Location": sign_in_address(request.url.path + query)})
    return caller


def _stream_viewer(request: Request) -> Caller:
    """401 in place of a redirect: the page's script leads to the sign-in page, with the address of the page."""
    caller: Caller | None = request.state.caller
    if caller is None:
        raise HTTPException(401, "sign in again")
    return caller


def _form_viewer(request: Request) -> Caller:
    """Back to the first page after signing in: a change that nobody sees must not be made then."""
    caller: Caller | None = request.state.caller
    if caller is None:
        raise HTTPException(303, headers={"Location": sign_in_address(HOME)})
    return caller


PageViewer = Annotated[Caller, Depends(_page_viewer)]
StreamViewer = Annotated[Caller, Depends(_stream_viewer)]
FormViewer = Annotated[Caller, Depends(_form_viewer)]
