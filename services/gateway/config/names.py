"""Names of HAProxy's backends and servers, made and read here only.

Each service has two backends (docs/why-gateway.md). The live one, `web.a`, has the service's instances. The spare one,
`web.b`, has none.
"""

from __future__ import annotations

QUEUE_SERVER = "hold"
"""Name of the backup server in every backend; no instance can have this name."""
_LIVE, _SPARE = ".a", ".b"


def live_backend(service: str) -> str:
    """Return the name of the service's live backend."""
    return service + _LIVE


def empty_backend(service: str) -> str:
    """Return the name of the service's spare backend."""
    return service + _SPARE


def service_of(backend: str) -> str | None:
    """Return the service of which this is the live backend; None for any other backend."""
    return backend.removesuffix(_LIVE) if backend.endswith(_LIVE) else None


def server_path(service: str, instance: str) -> str:
    """Return `backend/server`, by which commands name an instance of the service."""
    return f"{live_backend(service)}/{instance}"
