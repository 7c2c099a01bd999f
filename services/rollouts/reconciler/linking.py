"""Links that a deployment newly asks for: it is not done before the routers answer for them, and fails when they cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.rollouts.planner.steps import Failed
from services.rollouts.state.repository import ServiceSnapshot
from services.rollouts.state.revision_spec import revision_spec

REASON = "gateway_unverified"


@dataclass(frozen=True)
class UnservedLink:
    """The routers do not answer for a service by its name yet. `why`: when that has been so for long."""

    why: str | None


def unserved_links(snapshot: ServiceSnapshot, look: Callable[[str], UnservedLink | None]) -> dict[str, UnservedLink]:
    """Return those of the wanted revision that the present one does not have and that no router serves yet."""
    if snapshot.desired_revision is None or snapshot.desired_revision is snapshot.current_revision:
        return {}
    before = revision_spec(snapshot.current_revision).links if snapshot.current_revision is not None else []
    found = {name: look(name) for name in revision_spec(snapshot.desired_revision).links if name not in before}
    return {name: link for name, link in found.items() if link is not None}


def failed_by_routers(trouble: str | None, links: Mapping[str, UnservedLink]) -> Failed | None:
    """Return the verdict on a deployment of whose service routers have not done something for long."""
    if trouble is not None:
        return Failed(REASON, f"the gateway could not be brought to it: {trouble}")
    refused = [f"{name}: {link.why}" for name, link in links.items() if link.why is not None]
    return Failed(REASON, f"the gateway cannot answer for the link to {refused[0]}") if refused else None
