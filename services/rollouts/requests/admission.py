"""Admission of specs by the operator's rules, whenever a spec comes into force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from services.engine.port import LogConfig
from services.errors import FieldError
from services.outbound import OutboundPolicy, OutboundRefusedError
from services.rollouts.requests.container_limits import container_limit_errors
from services.rollouts.requests.host_mounts import mount_errors, overlap_errors
from services.rollouts.requests.log_drivers import log_errors
from services.rollouts.state.revision_spec import revision_spec
from services.spec import ServiceSpec
from services.store.tables import Revision, Service


@dataclass(frozen=True)
class AdmissionRules:
    """The operator's rules for all specs, from the settings.

    `default_route` (such as "/{name}") is for services that name no routes. `host_roots` are the host paths under which
    services may mount. `aliases` are the names by which every instance finds the host. `log_drivers` are the operator's log
    profiles. `outbound` are the servers that Sluice may call for a spec. `protected` are host paths of Sluice and of the
    engine that no service mounts.
    """

    default_route: str | None = None
    host_roots: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    log_drivers: Mapping[str, LogConfig] = field(default_factory=dict)
    outbound: OutboundPolicy = field(default_factory=OutboundPolicy)
    protected: tuple[str, ...] = ()


def admission_errors(rules: AdmissionRules, session: Session, service: str, spec: ServiceSpec) -> list[FieldError]:
    """Check a whole spec against the rules.

    The function is called for a deployment's effective spec, for the revision of a rollback, restart, scale-out or retry,
    when a pending deployment is activated, and before an instance starts. A stored spec is checked again because the rules
    may have changed.
    """
    return [
        *container_limit_errors(spec),
        *mount_errors(rules.host_roots, rules.protected, spec),
        *overlap_errors(session, service, spec),
        *log_errors(rules.log_drivers, spec.logging),
        *_disallowed_urls(rules, spec),
    ]


def refused_services(rules: AdmissionRules, session: Session) -> dict[str, str]:
    """Return the services whose current spec the rules do not allow today, each with the first reason."""
    current = select(Revision).join(
        Service, (col(Service.name) == Revision.service) & (col(Service.revision) == Revision.number)
    )
    refused = {}
    for revision in session.exec(current.order_by(Revision.service)):
        if errors := admission_errors(rules, session, revision.service, revision_spec(revision)):
            refused[revision.service] = f"{errors[0].field}: {errors[0].message}"
    return refused


def _disallowed_urls(rules: AdmissionRules, spec: ServiceSpec) -> list[FieldError]:
    try:
        if spec.eureka is not None:
            rules.outbound.check(spec.eureka.url)
    except OutboundRefusedError as error:
        return [FieldError("eureka.url", str(error))]
    return []
