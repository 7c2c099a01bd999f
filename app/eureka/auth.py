"""Who may use the Eureka port: everybody who reaches it, or, when the operator wants it so, who shows a token.

Clients name credentials in their URL (`http://any:sl_…@host:8761/eureka/`), which makes a Basic header of them. The
password is one of Sluice's tokens: `read` fetches, `deploy` registers as well, and a token that is bound to services only
as those.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from services.auth.access import Access, Bearer
from services.auth.tokens import includes


@dataclass(frozen=True)
class EurekaPrincipal:
    """`bearer` is None where no credentials are wanted."""

    bearer: Bearer | None = None

    def may_change(self, app: str) -> bool:
        """May it register, renew and override as this application?"""
        if self.bearer is None:
            return True
        bound = self.bearer.services
        mine = bound is None or any(fnmatchcase(app.lower(), pattern) for pattern in bound)
        return mine and includes(self.bearer.scope, "deploy")


@dataclass(frozen=True)
class EurekaAuth:
    access: Access | None
    """None: no credentials are wanted."""

    async def caller(self, headers: Mapping[str, str]) -> EurekaPrincipal | None:
        """None: refused."""
        if self.access is None:
            return EurekaPrincipal()
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            _, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        bearer = self.access.bearer(password)
        return EurekaPrincipal(bearer) if bearer is not None else None
