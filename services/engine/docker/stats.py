"""Resource usage of a container, from Docker's counters."""

from __future__ import annotations

from typing import Any

import docker
from docker.errors import NotFound

from services.engine.port import Usage


def usage_of(client: docker.APIClient, container: str) -> Usage | None:
    """Return the container's usage, None if it does not exist or does not run."""
    try:
        found: dict[str, Any] = client.stats(container, stream=False, one_shot=True)
        limit = client.inspect_container(container)["HostConfig"]["Memory"] or None
    except NotFound:
        return None
    memory = found.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    # As `docker stats` counts: files cached in memory are left out, because the kernel can reclaim them. The two
    # names of the counter are those of cgroups 1 and 2.
    details = memory.get("stats") or {}
    spare = details.get("total_inactive_file", details.get("inactive_file", 0))
    seconds = found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    return Usage(seconds, max(memory["usage"] - spare, 0), limit)
