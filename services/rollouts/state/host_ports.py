"""Host ports are drawn by chance: a port lost to another program in between is simply another try."""

from __future__ import annotations

import random

from sqlmodel import Session, col, select

from services.spec import HostPort
from services.store.tables import Instance

FIRST, LAST = 10_000, 19_999
"""Below those that the system lends for outgoing connections, and below the services' internal ports."""
MAX_ATTEMPTS = 20
"""Ports that the engine may refuse before the instance has failed."""


class HostPortsExhausted(Exception):
    """Every host port is in use or excluded."""


def allocate_host_port(session: Session, wanted: HostPort) -> int:
    """A port that no living instance has, in the caller's transaction, which must write it. Raises HostPortsExhausted."""
    living = select(Instance.host_port).where(col(Instance.stopped_at).is_(None), col(Instance.host_port).is_not(None))
    taken = {*session.exec(living), *wanted.exclude}
    free = [port for port in range(FIRST, LAST + 1) if port not in taken]
    if not free:
        raise HostPortsExhausted(f"no host port between {FIRST} and {LAST} is free")
    return random.choice(free)  # noqa: S311 - not a secret
