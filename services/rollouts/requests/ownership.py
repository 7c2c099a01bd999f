"""Isolation of services: limits of the spec of a bound token.

A bound token's spec may not take resources of services that the token does not cover. Each rule compares the claims of a
deployment with the resources of the other services. A claim that is already in force in the service's current revision is
never refused: it was admitted before, perhaps by a token that is not bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from services.errors import FieldError
from services.grant import Grant, is_below
from services.rollouts.state.routing_config import active_spec_values
from services.spec import Route, SpecFields, VolumeMount
from services.store.tables import Revision

CLAIM_FIELDS = ("routes", "volumes", "networks", "links")
"""Fields by which a spec or a profile reaches beyond its own service.

A test classifies every other field as harmless.
"""
UNBOUND = "use a token that is not bound to services"


@dataclass(frozen=True)
class ResourceClaims:
    """The names that a spec claims, each with the field that names it."""

    routes: dict[Route, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def claims_of(effective: dict[str, Any], request: dict[str, Any] | None = None) -> ResourceClaims:
    """Collect the claims of a spec in force, and of a request for it, including the request's profiles.

    Profiles that are not in force and that the request does not name claim nothing: they are checked when they are used.
    """
    claims = ResourceClaims()
    for prefix, layer in [("", effective), *_layers(request or {})]:
        named = {name: layer[name] for name in CLAIM_FIELDS if layer.get(name) is not None}
        spec = SpecFields.model_validate(named)
        for number, route in enumerate(spec.routes):
            claims.routes.setdefault(route, f"{prefix}routes.{number}")
        for number, volume in enumerate(spec.volumes):
            kinds = {"volume": claims.volumes, "bind": claims.mounts}
            if volume.type in kinds:
                kinds[volume.type].setdefault(volume.source or "", f"{prefix}volumes.{number}.source")
        for number, network in enumerate(spec.networks):
            claims.networks.setdefault(network, f"{prefix}networks.{number}")
        for number, link in enumerate(spec.links):
            claims.links.setdefault(link, f"{prefix}links.{number}")
    return claims


def ownership_errors(
    session: Session,
    grant: Grant,
    service: str,
    current: Revision | None,
    claims: ResourceClaims,
    default_route: str | None,
) -> list[FieldError]:
    """Check the claims of a deployment that is requested with a bound token.

    `current` is the service's revision in force. `default_route` is the path that the operator gives to services that name
    no route; such a path is not a claim.
    """
    admitted = claims_of(current.effective) if current is not None else ResourceClaims()
    admitted_routes = {route.key for route in admitted.routes}
    routes = {
        route: name
        for route, name in claims.routes.items()
        if route.key not in admitted_routes and not (route.host is None and route.path_prefix == default_route)
    }
    return [
        *_route_errors(session, grant, routes),
        *_volume_errors(session, grant, _without(claims.volumes, admitted.volumes)),
        *_mount_errors(session, grant, _without(claims.mounts, admitted.mounts)),
        *_network_errors(session, grant, _without(claims.networks, admitted.networks)),
        *_link_errors(session, grant, service, _without(claims.links, admitted.links)),
    ]


def unmanaged_volumes(session: Session, names: Iterable[str]) -> set[str]:
    """Return the volumes that no revision of any service names: Sluice does not know whose data they hold."""
    owners = _owners(session, "volumes", _volume_sources("volume"))
    return {name for name in names if name not in owners}


def unmanaged_volume(name: str) -> str:
    """Return why a bound token may not mount the volume: the engine has it, and no service does."""
    return f'volume "{name}" exists and belongs to no service, so it may hold foreign data; {UNBOUND}'


def volumes_named(fields: dict[str, Any]) -> set[str]:
    """Return the named volumes in a request's fields. Values that are no volumes are skipped.

    The fields need not be validated yet.
    """
    layers = [fields, *(fields["profiles"].values() if isinstance(fields.get("profiles"), dict) else ())]
    lists = [layer.get("volumes") for layer in layers if isinstance(layer, dict)]
    names = set()
    for item in (item for listed in lists if isinstance(listed, list) for item in listed):
        with suppress(ValidationError):
            volume = VolumeMount.model_validate(item)
            names |= {volume.source or ""} if volume.type == "volume" else set()
    return names


def _route_errors(session: Session, grant: Grant, routes: dict[Route, str]) -> Iterator[FieldError]:
    if not routes:
        return
    foreign = [
        (name, Route.model_validate(route))
        for name, routes_of_other in active_spec_values(session, "routes")
        if not grant.covers(name)
        for route in routes_of_other
    ]
    for route, where in routes.items():
        if not grant.allows_route(route.host, route.path_prefix):
            allowed = ", ".join([*grant.hosts, *grant.path_prefixes])
            yield FieldError(where, f"is outside the hosts and path prefixes of this token ({allowed}); {UNBOUND}")
            continue
        owner = next(
            (name for name, other in foreign if _shadows(route, other) and not _is_outside_grant(grant, other)), None
        )
        if owner is not None:
            why = f'takes requests of service "{owner}", which this token does not cover; choose another, or {UNBOUND}'
            yield FieldError(where, why)


def _shadows(route: Route, other: Route) -> bool:
    """Return whether `route` takes requests from `other`, because `route` is more specific.

    A host is more specific than no host; after that, a longer path is more specific.
    """
    if route.host is not None and other.host is None:
        return is_below(route.path_prefix, other.path_prefix) or is_below(other.path_prefix, route.path_prefix)
    return route.host == other.host and is_below(route.path_prefix, other.path_prefix)


def _is_outside_grant(grant: Grant, other: Route) -> bool:
    """Return whether the operator granted the token a part of the broader route `other`.

    In that case `other` is not itself within the grant.
    """
    return grant.bounds_routes and not grant.allows_route(other.host, other.path_prefix)


def _volume_errors(session: Session, grant: Grant, volumes: dict[str, str]) -> Iterator[FieldError]:
    owners = _owners(session, "volumes", _volume_sources("volume")) if volumes else {}
    for name, where in volumes.items():
        foreign = sorted(owner for owner in owners.get(name, ()) if not grant.covers(owner))
        if foreign:
            why = f'volume "{name}" belongs to service "{foreign[0]}", which this token does not cover; {UNBOUND}'
            yield FieldError(where, why)


def _mount_errors(session: Session, grant: Grant, mounts: dict[str, str]) -> Iterator[FieldError]:
    """Check host paths: only one that a covered service has already is admitted.

    A host path holds data that Sluice knows nothing of.
    """
    owners = _owners(session, "volumes", _volume_sources("bind")) if mounts else {}
    for path, where in mounts.items():
        if not owners.get(path) or not all(grant.covers(owner) for owner in owners[path]):
            yield FieldError(where, f"host path {path} is not yet one of a service that this token covers; {UNBOUND}")


def _network_errors(session: Session, grant: Grant, networks: dict[str, str]) -> Iterator[FieldError]:
    owners = _owners(session, "networks", lambda values: values) if networks else {}
    for name, where in networks.items():
        if not any(grant.covers(owner) for owner in owners.get(name, ())):
            yield FieldError(where, f'network "{name}" is not yet one of a service that this token covers; {UNBOUND}')


def _link_errors(session: Session, grant: Grant, service: str, links: dict[str, str]) -> Iterator[FieldError]:
    """Check links to services that the token does not cover.

    The first link to a service makes the gateway listen on that service's port, so it changes the linked service.
    """
    linked = (
        {name for owner, names in active_spec_values(session, "links") if owner != service for name in names}
        if links
        else set()
    )
    for name, where in links.items():
        if not grant.covers(name) and name not in linked:
            why = f'no service is linked to "{name}" yet, and this token does not cover that service; {UNBOUND}'
            yield FieldError(where, why)


def _owners(session: Session, name: str, values: Callable[[list[Any]], Iterable[str]]) -> dict[str, set[str]]:
    """Return each value of the field `name` with the services of which any kept revision has the value.

    All kept revisions count, because a rollback may restore them.
    """
    owners: dict[str, set[str]] = {}
    having = select(Revision.service, col(Revision.effective)[name]).where(col(Revision.effective)[name].is_not(None))
    for service, listed in session.exec(having):
        for value in values(listed or []):
            owners.setdefault(value, set()).add(service)
    return owners


def _volume_sources(kind: str) -> Callable[[list[Any]], Iterator[str]]:
    def sources(listed: list[Any]) -> Iterator[str]:
        volumes = (VolumeMount.model_validate(volume) for volume in listed)
        return (volume.source or "" for volume in volumes if volume.type == kind)

    return sources


def _layers(request: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", request
    for name, profile in (request.get("profiles") or {}).items():
        if profile is not None:
            yield f"profiles.{name}.", profile


def _without(claims: dict[str, str], admitted: dict[str, str]) -> dict[str, str]:
    return {name: where for name, where in claims.items() if name not in admitted}
