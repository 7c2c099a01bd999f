"""Tokens, and one-time links that sign their owners in to the dashboard."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints, model_validator
from sqlmodel import Session, col, select

from app.api import schemas
from app.api.context import get_app_context, show
from app.api.examples import LINK, NEW_TOKEN, TOKEN, page_of
from app.api.idempotency import claim, earlier_answer, store_answer
from app.api.params import Cursor, IdempotencyKey, Limit, Number, decode_cursor, encode_cursor
from app.api.request_body import Body, documented, read
from app.api.responses import ALWAYS, CHANGE, read_responses
from app.auth import Admin, Reader
from app.context import AppContext
from app.problems import declared, invalid
from services.clock import rfc3339
from services.grant import Grant
from services.store.tables import Token
from services.text_forms import Path
from services.units import parse_duration

router = APIRouter(tags=["tokens"])


_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._@/-]{0,63}$"
_SERVICE = r"^[a-z*][a-z0-9*-]{0,39}$"
_HOST = r"^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
_LONGEST = 10 * 366 * 24 * 3600.0
"""Maximum lifetime of a token: ten years, in seconds."""


def _name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("must be 1 to 64 letters, digits, blanks and ._@/-, starting with a letter or digit")
    return value


def _service(value: str) -> str:
    if not re.fullmatch(_SERVICE, value):
        raise ValueError('must be a service\'s name, or a pattern such as "pay-*"')
    return value


class TokenBody(Body):
    """A token to create.

    `services` are the only services that the token may change, by name or pattern (`pay-*`); null means all. `hosts`
    and `path_prefixes` limit the routes of a bound token. The token expires at `expires_at` or after `expires_in`
    seconds; with neither it never expires.
    """

    name: Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": _NAME})]
    scope: Literal["read", "deploy", "write", "admin"]
    services: (
        Annotated[
            list[Annotated[str, AfterValidator(_service), Field(json_schema_extra={"pattern": _SERVICE})]],
            Field(min_length=1, max_length=100),
        ]
        | None
    ) = None
    hosts: list[Annotated[str, StringConstraints(pattern=_HOST, max_length=253)]] = Field(
        default_factory=list, max_length=100
    )
    path_prefixes: list[Path] = Field(default_factory=list, max_length=100)
    expires_at: AwareDatetime | None = None
    expires_in: Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=_LONGEST, allow_inf_nan=False)] | None = (
        None
    )

    @model_validator(mode="after")
    def _check_single_expiry(self) -> TokenBody:
        if self.expires_at is not None and self.expires_in is not None:
            raise ValueError("expires_at and expires_in exclude each other")
        if self.services is not None and self.scope == "admin":
            raise ValueError("an admin token cannot be bound to services")
        if self.services is None and (self.hosts or self.path_prefixes):
            raise ValueError("hosts and path_prefixes need services: they restrict the routes of a bound token")
        if self.expires_at is not None and not 1970 < self.expires_at.year < 9999:
            raise ValueError("expires_at is out of range")
        return self

    @property
    def grant(self) -> Grant | None:
        """The limits of the token; None if it is not bound."""
        if self.services is None:
            return None
        return Grant(tuple(self.services), tuple(self.hosts), tuple(self.path_prefixes))


class NoBody(Body):
    """An empty body, or `{}`."""


@router.get("/tokens", responses=read_responses(200, schemas.Tokens, page_of(TOKEN), *ALWAYS))
async def tokens(request: Request, _admin: Admin, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """List the tokens that are not revoked, newest first; never their secrets."""
    sluice = get_app_context(request)
    after = decode_cursor(cursor, int)
    query = select(Token).where(col(Token.revoked_at).is_(None)).order_by(col(Token.id).desc()).limit(limit + 1)
    if after is not None:
        query = query.where(col(Token.id) < after[0])

    def page(session: Session) -> dict[str, object]:
        rows = session.exec(query).all()
        more = encode_cursor(rows[limit - 1].id) if len(rows) > limit else None
        return {"items": [token_view(sluice, row) for row in rows[:limit]], "next": more}

    return await show(request, page)


@router.post(
    "/tokens",
    status_code=201,
    responses=read_responses(201, schemas.NewToken, NEW_TOKEN, *CHANGE, "idempotency_key_reused"),
    openapi_extra=documented(
        TokenBody,
        ci={"name": "ci", "scope": "deploy", "services": ["web"]},
        person={"name": "ada", "scope": "write", "expires_in": "168h"},
    ),
)
async def create(request: Request, admin: Admin, key: IdempotencyKey = None) -> Response:
    """Create a token; only this response contains its secret."""
    body = await read(request, TokenBody)
    sluice = get_app_context(request)
    key_claim = await claim(request, admin, key)
    async with earlier_answer(sluice, key_claim) as earlier:
        if earlier is not None:
            return JSONResponse({**earlier, "token": None}, 201)
        row, secret = await sluice.auth.create(body.name, body.scope, body.grant, end_of(sluice, body), admin.actor)
        sluice.notifier.notify()
        view = token_view(sluice, row)
        await store_answer(sluice, key_claim, view)
    return JSONResponse({**view, "token": secret}, 201, headers={"Cache-Control": "no-store"})


@router.delete(
    "/tokens/{id}",
    status_code=204,
    responses=declared(
        *ALWAYS, "unknown_token", "last_admin_token", "store_unavailable", also={204: {"description": "revoked"}}
    ),
)
async def revoke(request: Request, admin: Admin, id: Number) -> Response:
    """Revoke a token and end its sessions."""
    sluice = get_app_context(request)
    await sluice.auth.revoke(id, admin.actor)
    sluice.notifier.notify()
    return Response(status_code=204)


@router.post(
    "/sign-in-links",
    status_code=201,
    responses=read_responses(201, schemas.SignInLink, LINK, *CHANGE),
    openapi_extra=documented(NoBody, required=False, empty={}),
)
async def sign_in_link(request: Request, reader: Reader) -> Response:
    """Create a link that opens the dashboard once, with the caller's own scope, within half an hour."""
    await read(request, NoBody)
    code, expires = await get_app_context(request).auth.make_link(reader.principal, reader.remote)
    view = {"url": f"{str(request.base_url).rstrip('/')}/ui/sign-in?code={code}", "expires_at": rfc3339(expires)}
    return JSONResponse(view, 201, headers={"Cache-Control": "no-store"})


def end_of(sluice: AppContext, body: TokenBody) -> float | None:
    """Return the token's expiry in seconds since 1970. Raises Problem (422) if it is in the past."""
    if body.expires_in is not None:
        return sluice.clock.now() + body.expires_in
    if body.expires_at is None:
        return None
    if body.expires_at.timestamp() <= sluice.clock.now():
        raise invalid("expires_at", "is in the past")
    return body.expires_at.timestamp()


def token_view(sluice: AppContext, row: Token) -> dict[str, object]:
    used = sluice.auth.last_used(row)
    return {
        "id": row.id,
        "name": row.name,
        "scope": row.scope,
        "services": row.services,
        "hosts": row.hosts,
        "path_prefixes": row.path_prefixes,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at) if row.expires_at is not None else None,
        "last_used_at": rfc3339(used) if used is not None else None,
    }
