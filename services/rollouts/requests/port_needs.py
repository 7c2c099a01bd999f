"""Parts of a spec that need a port. A service without a port is a worker, to which nothing is routed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from services.errors import FieldError
from services.rollouts.state.routing_config import services_linking_to
from services.spec import ServiceSpec
from services.store.tables import Revision


@dataclass(frozen=True)
class PortNeed:
    """A reason why a service cannot be a worker; `clause` completes "… and", `remedy` is the fix."""

    field: str
    clause: str
    remedy: str


def port_needs(
    session: Session, service: str, named: Mapping[str, Any], spec: ServiceSpec, current: Revision | None
) -> list[PortNeed]:
    """Return the reasons why the service needs a port.

    `named` are the effective fields without the operator's default route, which suits workers too. A link to a service that
    is a worker already is no reason: it never led anywhere.
    """
    needs: list[PortNeed] = []
    if named.get("routes"):
        needs.append(PortNeed("routes", "the spec has routes", "remove the routes"))
    check = spec.healthcheck
    if check is not None and check.port is None and (check.path is not None or check.tcp):
        way = "path" if check.path is not None else "tcp"
        needs.append(PortNeed(f"healthcheck.{way}", f"healthcheck.{way} asks the port", "use test or disable"))
    if spec.eureka is not None:
        needs.append(PortNeed("eureka", "eureka is set", "remove eureka"))
    if current is None or current.port is not None:
        needs += [_link(other) for other in services_linking_to(session, service)]
    return needs


def null_port_errors(
    session: Session, service: str, named: Mapping[str, Any], spec: ServiceSpec, current: Revision | None
) -> list[FieldError]:
    """Return the errors of a spec whose port is null, although other parts need a port."""
    return [
        FieldError(need.field, f"needs a port, but port is null: {need.clause}; set port, or {need.remedy}")
        for need in port_needs(session, service, named, spec, current)
    ]


def _link(other: str) -> PortNeed:
    return PortNeed("port", f'service "{other}" links to this service', f'remove the link from "{other}"')
