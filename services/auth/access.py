"""Authentication: tokens, one-time links, and the sessions that they open."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from sqlmodel import Session, col, delete, func, select, update

from services.actor import Actor
from services.auth.login_throttle import LoginThrottle
from services.auth.tokens import TokenKey, new_token, well_formed
from services.clock import Clock
from services.errors import RequestError
from services.grant import Grant
from services.store.database import Store
from services.store.events import append_event
from services.store.tables import BrowserSession, Token

LINK_LIFETIME = 30 * 60.0
SESSION_LIFETIME = 24 * 3600.0
INITIAL_ADMIN = "admin"
"""Name of the token that the first start creates."""


@dataclass(frozen=True)
class Principal:
    """The holder of a token, or of a session that a token opened.

    `grant` is None unless the token is bound to services.
    """

    token: int
    name: str
    scope: str
    grant: Grant | None = None
    kind: Literal["token", "session"] = "token"

    def allows_service(self, service: str) -> bool:
        """Return True if the token may change the service."""
        return self.grant is None or self.grant.covers(service)

    @property
    def services(self) -> tuple[str, ...] | None:
        """The patterns of the services that the token may change; None means all."""
        return self.grant.services if self.grant is not None else None

    def actor(self, remote: str | None) -> Actor:
        """Return the principal as history and audit name it."""
        return Actor(self.kind, self.name, remote, self.token, self.grant)


class AuthService:
    """Authentication of callers by tokens, links and sessions.

    Tokens are few and are checked at every request, so they are cached in memory. This class alone writes their
    table.
    """

    def __init__(self, store: Store, clock: Clock, key: TokenKey) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self._tokens: dict[int, Token] = {}
        self._by_digest: dict[str, int] = {}
        self._used: dict[int, float] = {}
        self.attempts = LoginThrottle(clock)

    async def open(self, show: Callable[[str], None]) -> None:
        """Read the tokens. If no valid admin token exists (the first start), create one and `show` it once.

        If `show` raises, no token is created. If the key was lost, its digests are useless, so those tokens are
        revoked.
        """

        def start(session: Session) -> list[Token]:
            now = self._clock.now()
            if self._key.is_new:
                session.exec(update(Token).where(col(Token.revoked_at).is_(None)).values(revoked_at=now))
            tokens = list(session.exec(select(Token).where(col(Token.revoked_at).is_(None))))
            if any(token.scope == "admin" and (token.expires_at or now + 1) > now for token in tokens):
                return tokens
            created, secret = self._new(session, INITIAL_ADMIN, "admin", None, None, Actor("system", "sluice"))
            show(secret)
            return [*tokens, created]

        for token in await self._store.write(start):
            self._cache(token)

    def principal(self, secret: str) -> Principal | None:
        """Return the principal of a token, None if it is unknown, revoked or expired."""
        if not well_formed(secret):
            return None
        return self._principal(self._by_digest.get(self._key.digest(secret)), "token")

    async def create(
        self, name: str, scope: str, grant: Grant | None, expires_at: float | None, by: Actor
    ) -> tuple[Token, str]:
        """Create a token. Return its row and the secret, which cannot be read again."""
        row, secret = await self._store.write(lambda session: self._new(session, name, scope, grant, expires_at, by))
        self._cache(row)
        return row, secret

    async def revoke(self, id: int, by: Actor) -> None:
        """Revoke a token and end its sessions immediately.

        Raises RequestError: 404 `unknown_token`, or 409 `last_admin_token`, because no other token could create an
        admin token.
        """

        def end(session: Session) -> None:
            row = session.get(Token, id)
            if row is None or row.revoked_at is not None:
                raise RequestError(404, "unknown_token", f"token {id} not found")
            now = self._clock.now()
            admins = select(Token.expires_at).where(Token.id != id, Token.scope == "admin", col(Token.revoked_at).is_(None))
            if row.scope == "admin" and not any((expires or now + 1) > now for expires in session.exec(admins)):
                raise RequestError(
                    409, "last_admin_token", f'"{row.name}" is the last admin token; create another one first'
                )
            row.revoked_at = now
            session.add(row)
            session.exec(delete(BrowserSession).where(col(BrowserSession.token) == id))
            append_event(session, now, "token_revoked", f'token "{row.name}" revoked', data={"token": id}, **by.columns())

        await self._store.write(end)
        revoked = self._tokens.pop(id, None)
        if revoked is not None:
            self._by_digest.pop(revoked.digest, None)

    async def make_link(self, principal: Principal, remote: str | None = None) -> tuple[str, float]:
        """Create a code that opens one session for the token's owner, once. Return the code and its expiry."""
        code, now = secrets.token_urlsafe(24), self._clock.now()
        expires = now + LINK_LIFETIME

        def make(session: Session) -> None:
            self._open(session, "link", code, principal.token, expires)
            by = principal.actor(remote)
            append_event(session, now, "sign_in_link_made", f"a one-time link for {principal.name}", **by.columns())

        await self._store.write(make)
        return code, expires

    async def sign_in(self, *, code: str = "", token: str = "", remote: str | None = None) -> str | None:
        """Sign in by a link's code or a token. Return the value of the session's cookie.

        Returns None if the code or token is unknown, used or expired. Both outcomes are recorded in the audit.
        """
        cookie = secrets.token_urlsafe(32)

        def enter(session: Session) -> str | None:
            now = self._clock.now()
            principal = self._by_link(session, code) if code else self.principal(token)
            if principal is None:
                how = "a used or expired link" if code else "an unknown token"
                anonymous = Actor("anonymous", "anonymous", remote)
                append_event(session, now, "sign_in_refused", f"tried to sign in with {how}", **anonymous.columns())
                return None
            self._open(session, "session", cookie, principal.token, now + SESSION_LIFETIME)
            by = replace(principal, kind="session").actor(remote)
            append_event(session, now, "signed_in", f"{principal.name} signed in to the dashboard", **by.columns())
            return cookie

        created = await self._store.write(enter)
        if created is None:
            self.attempts.failed(remote)
        return created

    async def session(self, cookie: str) -> Principal | None:
        """Return the principal of the cookie's session, None if there is no valid one."""
        return await self._store.read(lambda session: self.session_in(session, cookie))

    def session_in(self, session: Session, cookie: str) -> Principal | None:
        """Return the principal of the cookie's session, in a transaction of the caller."""
        row = session.get(BrowserSession, self._key.digest(cookie))
        if row is None or row.kind != "session" or row.expires_at <= self._clock.now():
            return None
        return self._principal(row.token, "session")

    async def sign_out(self, cookie: str, *, everywhere: bool = False, remote: str | None = None) -> None:
        """End the cookie's session, or with `everywhere` all sessions of its token."""
        digest = self._key.digest(cookie)

        def end(session: Session) -> None:
            principal = self.session_in(session, cookie)
            if principal is None:
                return
            selected = col(BrowserSession.token) == principal.token if everywhere else col(BrowserSession.digest) == digest
            session.exec(delete(BrowserSession).where(selected))
            suffix = " everywhere" if everywhere else ""
            by = principal.actor(remote)
            append_event(session, self._clock.now(), "signed_out", f"{principal.name} signed out{suffix}", **by.columns())

        await self._store.write(end)

    def sessions_in(self, session: Session) -> dict[int, int]:
        """Return token → number of open sessions."""
        now = self._clock.now()
        opened = select(BrowserSession.token, func.count()).where(
            BrowserSession.kind == "session", BrowserSession.expires_at > now
        )
        return dict(session.exec(opened.group_by(col(BrowserSession.token))).all())

    async def expire(self) -> None:
        """Write the times of last use, and delete expired links and sessions.

        Call now and then; writing at every request would be too expensive.
        """
        used, self._used = self._used, {}

        def write(session: Session) -> None:
            for id, at in used.items():
                session.exec(update(Token).where(col(Token.id) == id).values(last_used_at=at))
            session.exec(delete(BrowserSession).where(col(BrowserSession.expires_at) <= self._clock.now()))

        await self._store.write(write)

    def last_used(self, token: Token) -> float | None:
        """Return when the token was last used, which may be later than in its row."""
        return self._used.get(token.id or 0, token.last_used_at)

    def _by_link(self, session: Session, code: str) -> Principal | None:
        """Return the principal of a link's code and delete the link."""
        link = session.get(BrowserSession, self._key.digest(code))
        if link is None or link.kind != "link":
            return None
        session.delete(link)
        return self._principal(link.token, "session") if link.expires_at > self._clock.now() else None

    def _principal(self, id: int | None, kind: Literal["token", "session"]) -> Principal | None:
        token = self._tokens.get(id) if id is not None else None
        now = self._clock.now()
        if token is None or token.id is None or (token.expires_at is not None and token.expires_at <= now):
            return None
        self._used[token.id] = now
        return Principal(token.id, token.name, token.scope, grant_of(token), kind)

    def _cache(self, token: Token) -> None:
        if token.id is not None:
            self._tokens[token.id] = token
            self._by_digest[token.digest] = token.id

    def _new(
        self, session: Session, name: str, scope: str, grant: Grant | None, expires_at: float | None, by: Actor
    ) -> tuple[Token, str]:
        secret, now = new_token(), self._clock.now()
        row = Token(name=name, digest=self._key.digest(secret), scope=scope, created_at=now, expires_at=expires_at)
        bounds = grant.to_json() if grant is not None else {}
        for field, values in bounds.items():
            setattr(row, field, values or None)
        session.add(row)
        session.flush()
        data = {"token": row.id, "scope": scope, "services": None, **bounds}
        append_event(session, now, "token_created", f'token "{name}" created, scope {scope}', data=data, **by.columns())
        return row, secret

    def _open(self, session: Session, kind: str, secret: str, token: int, expires: float) -> None:
        now = self._clock.now()
        session.add(
            BrowserSession(digest=self._key.digest(secret), kind=kind, token=token, created_at=now, expires_at=expires)
        )


def grant_of(token: Token) -> Grant | None:
    """Return the limits of a token, None if it is not bound to services."""
    if not token.services:
        return None
    return Grant(tuple(token.services), tuple(token.hosts or ()), tuple(token.path_prefixes or ()))
