"""Links that a deployment adds to its service.

The deployment is not done before the routers answer for these links, and fails if the routers cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.rollouts.planner.steps import Failed
from services.rollouts.state.repository import ServiceSnapshot
from services.rollouts.state.revision_spec import revision_spec

REASON = "gateway_unverified"


@dataclass(frozen=True)
class UnservedLink:
    """A link to a service for which the routers do not answer by name yet.

    `why` is the routers' error if the link has not been served for too long.
    """

    why: str | None


def unserved_links(snapshot: ServiceSnapshot, look: Callable[[str], UnservedLink | None]) -> dict[str, UnservedLink]:
    """Return the links of the desired revision that the current one lacks and that no router serves yet."""
    if snapshot.desired_revision is None or snapshot.desired_revision is snapshot.current_revision:
        return {}
    before = revision_spec(snapshot.current_revision).links if snapshot.current_revision is not None else []
    found = {name: look(name) for name in revision_spec(snapshot.desired_revision).links if name not in before}
    return {name: link for name, link in found.items() if link is not None}


def failed_by_routers(trouble: str | None, links: Mapping[str, UnservedLink]) -> Failed | None:
    """Return the failure of a deployment if the routers have failed it for too long, or None.

    `trouble` is the routers' persistent error for the service or its instances. `links` are the links not served yet.
    """
    if trouble is not None:
        return Failed(REASON, f"the gateway could not be brought to it: {trouble}")
    refused = [f"{name}: {link.why}" for name, link in links.items() if link.why is not None]
    return Failed(REASON, f"the gateway cannot answer for the link to {refused[0]}") if refused else None
