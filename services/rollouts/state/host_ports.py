"""Host ports of instances, allocated at random.

If another program takes a port first, the instance simply tries another one.
"""

from __future__ import annotations

import random

from sqlmodel import Session, col, select

from services.spec import HostPort
from services.store.tables import Instance

FIRST, LAST = 10_000, 19_999
"""The range lies below the system's ephemeral ports and below the services' internal ports."""
MAX_ATTEMPTS = 20
"""Host ports that the engine may refuse before the instance fails."""


class HostPortsExhausted(Exception):
    """The error for a state in which every host port is in use or excluded."""


def allocate_host_port(session: Session, wanted: HostPort) -> int:
    """Return a random host port that no living instance has and `wanted` does not exclude.

    The caller's transaction must write the port. Raises HostPortsExhausted if no port is free.
    """
    living = select(Instance.host_port).where(col(Instance.stopped_at).is_(None), col(Instance.host_port).is_not(None))
    taken = {*session.exec(living), *wanted.exclude}
    free = [port for port in range(FIRST, LAST + 1) if port not in taken]
    if not free:
        raise HostPortsExhausted(f"no host port between {FIRST} and {LAST} is free")
    return random.choice(free)  # noqa: S311 - not a secret
