"""A request to the Eureka port, parsed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from services.eureka.ownership import Covers


@dataclass(frozen=True)
class EurekaRequest:
    """A request as the operations see it."""

    method: str
    path: tuple[str, ...]
    """After `/eureka`, decoded, without empty parts."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    local: str
    """The address of ours that the client called."""
    remote: str
    direct: bool
    """The real instances were asked for, whatever consumers are shown."""
    body: Callable[[], Awaitable[bytes]]
    covers: Covers | None = None
    """Of the token that the client showed; None where no credentials are wanted."""

    @property
    def identity(self) -> str:
        """How the client tells itself from others at the same address."""
        named = [self.headers.get(f"discoveryidentity-{part}") for part in ("name", "version", "id")]
        return "/".join(part for part in named if part) or self.headers.get("user-agent", "")


class TooLarge(Exception):
    """The body is larger than a registration may be, or did not come in time."""


class TooMany(Exception):
    """The query has more parameters than any operation takes."""
