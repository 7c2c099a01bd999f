"""The author of a request, for history and audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.grant import Grant


@dataclass(frozen=True)
class Actor:
    """The author of a request, for history and audit, and the limits of the author's token.

    `kind` is token, session, system or anonymous. `remote` is the client's address. `token` is the number of the token that
    was sent or signed in with. `grant` is None unless that token is bound to services.
    """

    kind: str
    name: str
    remote: str | None = None
    token: int | None = None
    grant: Grant | None = None

    def columns(self) -> dict[str, Any]:
        """Return the author as columns of an event."""
        return {"actor_kind": self.kind, "actor_name": self.name, "actor_token": self.token, "remote": self.remote}


SYSTEM = Actor("system", "sluice")
