"""A request to the Eureka port, parsed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from services.eureka.ownership import Covers


@dataclass(frozen=True)
class EurekaRequest:
    """A request, as the operations read it."""

    method: str
    path: tuple[str, ...]
    """Path after `/eureka`, decoded, without empty parts."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    local: str
    """Local address that the client called."""
    remote: str
    direct: bool
    """True if the client asked for the real instances instead of the consumer view."""
    body: Callable[[], Awaitable[bytes]]
    covers: Covers | None = None
    """Check of the names that the client's token covers; None if the port needs no credentials."""

    @property
    def identity(self) -> str:
        """Name that distinguishes the client from others at the same address."""
        named = [self.headers.get(f"discoveryidentity-{part}") for part in ("name", "version", "id")]
        return "/".join(part for part in named if part) or self.headers.get("user-agent", "")


class TooLarge(Exception):
    """The body is larger than a registration may be, or did not arrive in time."""


class TooMany(Exception):
    """The query has more parameters than any operation takes."""
