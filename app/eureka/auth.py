"""Authentication on the Eureka port: open to every client that reaches it, or by token if configured.

Clients put credentials into their URL (`http://any:sl_…@host:8761/eureka/`) and send them as a Basic header. The
password is one of Sluice's tokens: scope `read` fetches, scope `deploy` registers too. A token that is bound to
services registers only those.
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
    """An authenticated client; `bearer` is None if the port needs no credentials."""

    bearer: Principal | None = None

    def may_change(self, app: str) -> bool:
        """Tell whether the client may register, renew and override as the application `app`."""
        if self.bearer is None:
            return True
        bound = self.bearer.services
        mine = bound is None or any(fnmatchcase(app.lower(), pattern) for pattern in bound)
        return mine and scope_includes(self.bearer.scope, "deploy")


@dataclass(frozen=True)
class EurekaAuth:
    access: AuthService | None
    """None if the port needs no credentials."""

    async def caller(self, headers: Mapping[str, str]) -> EurekaPrincipal | None:
        """Return the client; None if its credentials are missing or not valid."""
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
