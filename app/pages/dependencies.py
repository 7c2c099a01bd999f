"""The viewer of a page, as app.auth identified it; without one, pages redirect to the sign-in page."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request

from app.auth import REFERENCE, Caller

SIGN_IN = "/ui/sign-in"
HOME = "/ui/"


def sign_in_address(after: str) -> str:
    """Return the address of the sign-in page that continues to `after`."""
    return f"{SIGN_IN}?next={quote(after, safe='')}"


def within(address: str) -> str:
    """Return `address` if it is a page of the dashboard, else the first page.

    A link must not lead to another site.
    """
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
    """Return the viewer of a stream. Raises 401 instead of a redirect.

    The page's script opens the sign-in page with the address of the page.
    """
    caller: Caller | None = request.state.caller
    if caller is None:
        raise HTTPException(401, "sign in again")
    return caller


def _form_viewer(request: Request) -> Caller:
    """Return the viewer of a form, or redirect through the sign-in page to the first page.

    The change must not be made after the sign-in: the viewer would not see it.
    """
    caller: Caller | None = request.state.caller
    if caller is None:
        raise HTTPException(303, headers={"Location": sign_in_address(HOME)})
    return caller


PageViewer = Annotated[Caller, Depends(_page_viewer)]
StreamViewer = Annotated[Caller, Depends(_stream_viewer)]
FormViewer = Annotated[Caller, Depends(_form_viewer)]
