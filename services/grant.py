"""The limits of a token that is bound to services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Grant:
    """The services that a bound token may change, and the routes that it may give them.

    `services` are names or patterns. `hosts` (names, or `*.example.org` for one label or more) and `path_prefixes` bound the
    token's routes if they are given. They also allow an exception for bound tokens: a route within a broader route of a
    service that the token does not cover.
    """

    services: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    path_prefixes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any] | None) -> Grant | None:
        """Return the grant that `to_json` wrote, or None for a caller that is not bound."""
        return cls(**{name: tuple(value) for name, value in row.items()}) if row is not None else None

    def to_json(self) -> dict[str, list[str]]:
        """Return the grant as JSON, to be read by `from_json`."""
        return {"services": [*self.services], "hosts": [*self.hosts], "path_prefixes": [*self.path_prefixes]}

    def covers(self, service: str) -> bool:
        """Return whether the token may change the service."""
        return any(fnmatchcase(service, pattern) for pattern in self.services)

    @property
    def bounds_routes(self) -> bool:
        """Whether the token bounds the routes that it may give its services."""
        return bool(self.hosts or self.path_prefixes)

    def allows_route(self, host: str | None, path: str) -> bool:
        """Return whether a route lies within the hosts and path prefixes of the token.

        A token without hosts or path prefixes allows every route.
        """
        in_hosts = not self.hosts or (host is not None and any(fnmatchcase(host, pattern) for pattern in self.hosts))
        in_paths = not self.path_prefixes or any(is_below(path, prefix) for prefix in self.path_prefixes)
        return in_hosts and in_paths


def is_below(path: str, prefix: str) -> bool:
    """Return whether `path` equals `prefix` or lies below it, by whole segments. `/a` and `/a/` are equal."""
    return (path.rstrip("/") + "/").startswith(prefix.rstrip("/") + "/")
