"""Routes that two services would share: a route is unique in the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pydantic import ValidationError
from sqlmodel import Session

from services.errors import FieldError
from services.rollouts.requests.command import DeployRequest
from services.rollouts.state.routing_config import active_spec_values
from services.spec import Route


def route_conflicts(session: Session, service: str, routes: Sequence[Route]) -> list[FieldError]:
    """Return errors for routes that another service has or is deploying."""
    if not routes:
        return []
    others = [(name, routes) for name, routes in active_spec_values(session, "routes") if name != service]
    owners = {Route.model_validate(route).key: name for name, routes in others for route in routes}
    return [_conflict(f"routes.{number}", owners[route.key]) for number, route in enumerate(routes) if route.key in owners]


def shared_routes(deploy_requests: Sequence[DeployRequest]) -> list[FieldError]:
    """Return errors for routes that two requests of a group share.

    Values that are no routes are skipped: they are refused with the rest of their spec.
    """
    owners: dict[tuple[str, str], str] = {}
    errors: list[FieldError] = []
    for deploy_request in deploy_requests:
        name, routes = deploy_request.service, deploy_request.fields.get("routes")
        for number, route in enumerate(routes if isinstance(routes, list) else ()):
            with suppress(ValidationError):
                owner = owners.setdefault(Route.model_validate(route).key, name)
                if owner != name:
                    errors.append(_conflict(f"{name}.routes.{number}", owner))
    return errors


def _conflict(field: str, owner: str) -> FieldError:
    return FieldError(field, f'service "{owner}" already has this route')
