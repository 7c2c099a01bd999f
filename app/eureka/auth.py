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

from services.auth.access import AuthService, Principal
from services.auth.tokens import scope_includes


@dataclass(frozen=True)
class EurekaPrincipal:
    """`principal` is None where no credentials are wanted."""

    bearer: Principal | None = None

    def may_change(self, app: str) -> bool:
        """May it register, renew and override as this application?"""
        if self.bearer is None:
            return True
        bound = self.bearer.services
        mine = bound is None or any(fnmatchcase(app.lower(), pattern) for pattern in bound)
        return mine and scope_includes(self.bearer.scope, "deploy")


@dataclass(frozen=True)
class EurekaAuth:
    access: AuthService | None
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
        principal = self.access.principal(password)
        return EurekaPrincipal(principal) if principal is not None else None
