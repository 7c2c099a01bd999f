"""Validation of a request against the current spec, before anything is started."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, or_, select

from services.engine.port import Engine
from services.errors import FieldError, RequestError
from services.grant import Grant
from services.masking import too_many_secrets
from services.redaction import masked_fields
from services.rollouts.requests.admission import AdmissionRules, admission_errors
from services.rollouts.requests.ownership import claims_of, ownership_errors, unmanaged_volumes, volumes_named
from services.rollouts.requests.port_needs import null_port_errors
from services.rollouts.requests.route_conflicts import route_conflicts
from services.rollouts.requests.spec_errors import MAX_ERRORS, field_errors, invalid, unknown_field_errors
from services.rollouts.requests.spec_merge import Layers, apply_layers
from services.rollouts.state.revision_spec import revision_spec
from services.secret_patterns import MASK
from services.spec import ServiceSpec, SpecFields
from services.store.database import Store
from services.store.tables import Deployment, Revision, Service


@dataclass(frozen=True)
class ValidatedRequest:
    """A checked request: the layers to keep, the spec that they result in, and the replicas that it names."""

    layers: Layers
    spec: ServiceSpec
    replicas: int | None
    effective: dict[str, Any] = field(default_factory=dict)


def current_layers(revision: Revision | None) -> Layers | None:
    return Layers(revision.spec, revision.profile, revision.overrides) if revision is not None else None


def current_revision(session: Session, service: Service | None) -> Revision | None:
    """Return the revision of the service's last deployment that succeeded, or None."""
    if service is None or service.revision is None:
        return None
    return session.get(Revision, (service.name, service.revision))


def validate(session: Session, rules: AdmissionRules, current: Revision | None, deployment: Deployment) -> ValidatedRequest:
    """Merge a request as `merge` does, and check the result against other services and the rules.

    Raises RequestError 422 `invalid_spec` or `redacted_value`.
    """
    validated, name = merge(rules, current, deployment), deployment.service
    grant = Grant.from_json(deployment.bound_to)
    errors = [
        *_exclusive_volume_errors(
            validated.spec,
            validated.replicas if validated.replicas is not None else effective_replicas(session, name, deployment.id),
        ),
        *admission_errors(rules, session, name, validated.spec),
        *route_conflicts(session, name, validated.spec.routes),
        *foreign_claims(session, rules, grant, name, current, validated.effective, deployment.body),
        *_null_port_errors(session, name, current, validated),
    ]
    if errors:
        raise invalid(errors)
    return validated


def stored_errors(
    session: Session,
    rules: AdmissionRules,
    grant: Grant | None,
    revision: Revision,
    current: Revision | None,
    replicas: int,
) -> list[FieldError]:
    """Check a stored spec that comes into force again.

    The rules, the routes of other services and the author's bounds may have changed since the spec was stored.
    """
    spec, name = revision_spec(revision), revision.service
    return [
        *_exclusive_volume_errors(spec, replicas),
        *admission_errors(rules, session, name, spec),
        *route_conflicts(session, name, spec.routes),
        *foreign_claims(session, rules, grant, name, current, revision.effective),
        *_stored_port_errors(session, revision, current),
    ]


def foreign_claims(
    session: Session,
    rules: AdmissionRules,
    grant: Grant | None,
    name: str,
    current: Revision | None,
    effective: dict[str, Any],
    request: dict[str, Any] | None = None,
) -> list[FieldError]:
    """Check a spec and the request for it for claims on services that the author's token does not cover."""
    if grant is None:
        return []
    default_route = rules.default_route.format(name=name) if rules.default_route else None
    return ownership_errors(session, grant, name, current, claims_of(effective, request), default_route)


def merge(rules: AdmissionRules, current: Revision | None, deployment: Deployment) -> ValidatedRequest:
    """Merge a deployment's body over the current spec and check the result by itself.

    Raises RequestError as `validate` does.
    """
    _refuse_placeholders(deployment.body)
    if errors := [*unknown_field_errors(deployment.body), *_check_replicas(deployment.body)]:
        raise invalid(errors)
    layers, replicas = apply_layers(
        current_layers(current), deployment.body, deployment.mode, deployment.profile_named, deployment.profile
    )
    profiles = layers.base.get("profiles")
    _validated(layers.base)
    if layers.profile is not None and layers.profile not in (profiles or {}):
        known = ", ".join(sorted(profiles or {})) or "none"
        raise invalid([FieldError("profile", f'"{layers.profile}" is not one of the service\'s profiles ({known})'[:500])])
    effective = layers.effective()
    spec = _validated(effective)
    if spec.image is None:
        raise invalid([FieldError("image", "is required: the service has no image yet")])
    if "routes" not in effective and rules.default_route and effective.get("port", 0) is not None:
        route = rules.default_route.format(name=deployment.service)
        effective["routes"] = [{"path_prefix": route, "strip_prefix": True}]
        spec = _validated(effective)
    if too_many := too_many_secrets(effective):
        raise invalid([FieldError("environment", too_many)])
    return ValidatedRequest(layers, spec, replicas, effective)


async def existing_unmanaged_volume(
    store: Store, engine: Engine, rules: AdmissionRules, deployment: Deployment
) -> str | None:
    """Return a volume that a deploy would mount, that the engine has and that no service names.

    Returns None if there is none.

    The volumes of the resulting spec count as well as those of the request: a profile that the request uses may have named a
    volume before it existed.
    Raises EngineError.
    """

    def named(session: Session) -> set[str]:
        names = volumes_named(deployment.body)
        with suppress(RequestError):  # reported when the request is validated
            current = current_revision(session, session.get(Service, deployment.service))
            names |= volumes_named({"volumes": merge(rules, current, deployment).effective.get("volumes")})
        return unmanaged_volumes(session, names) if names else set()

    unmanaged = await store.read(named)
    existing = await engine.existing_volumes(tuple(sorted(unmanaged))) if unmanaged else ()
    return existing[0] if existing else None


def _refuse_placeholders(body: dict[str, Any]) -> None:
    """Refuse values that Sluice showed in place of a secret: they must not become the secret.

    Raises RequestError 422 `redacted_value`.
    """
    why = f'is "{MASK}", which stands for a hidden secret: omit the field to keep the value, or give the value itself'
    errors = [FieldError(field, why) for field in islice(masked_fields(body), MAX_ERRORS)]
    if errors:
        raise RequestError(422, "redacted_value", f"{errors[0].field}: {why}", errors)


def _check_replicas(body: dict[str, Any]) -> list[FieldError]:
    """Check `replicas` by itself, because it is not part of the stored spec."""
    try:
        SpecFields.model_validate({"replicas": body.get("replicas")})
    except ValidationError as error:
        return field_errors(error)
    return []


def _validated(fields: dict[str, Any]) -> ServiceSpec:
    try:
        return ServiceSpec.model_validate(fields)
    except ValidationError as error:
        raise invalid(field_errors(error)) from None


def effective_replicas(session: Session, name: str, deployment: int | None = None) -> int:
    """Return the number of instances for a deployment that names no number.

    `deployment` is None for one that is being requested. The number is the last one requested by a deployment that this one
    takes over from: pending, progressing, paused, or superseded by this one. Without such a deployment it is the service's
    size, which counts as 1 until a deployment has succeeded.
    """
    unfinished = col(Deployment.status).in_(("pending", "progressing", "paused"))
    before = select(Deployment.replicas).where(Deployment.service == name, Deployment.kind != "remove")
    if deployment is None:
        before = before.where(unfinished)
    else:
        taken_over = or_(unfinished, col(Deployment.superseded_by) == deployment)
        before = before.where(taken_over, col(Deployment.id) < deployment)
    requested = session.exec(before.order_by(col(Deployment.id).desc()).limit(1)).first()
    service = session.get(Service, name)
    size = service.replicas if service is not None and service.revision is not None else 1
    return requested if requested is not None else size


def _null_port_errors(
    session: Session, name: str, current: Revision | None, validated: ValidatedRequest
) -> list[FieldError]:
    """Check a spec that gives its port as null."""
    if validated.effective.get("port", 0) is not None:
        return []
    return null_port_errors(session, name, validated.layers.effective(), validated.spec, current)


def _stored_port_errors(session: Session, revision: Revision, current: Revision | None) -> list[FieldError]:
    """Check a stored revision without a port that would follow a revision with one."""
    if revision.port is not None or current is None or current.port is None:
        return []
    named = Layers(revision.spec, revision.profile, revision.overrides).effective()
    return null_port_errors(session, revision.service, named, revision_spec(revision), current)


def _exclusive_volume_errors(spec: ServiceSpec, replicas: int) -> list[FieldError]:
    why = exclusive_volume_conflict(spec, replicas)
    return [FieldError("replicas", why)] if why else []


def exclusive_volume_conflict(spec: ServiceSpec, replicas: int) -> str | None:
    """Return why `replicas` instances are not possible, or None.

    Two instances must not write one volume at the same time.
    """
    volume = next((volume for volume in spec.volumes if volume.writable_alone), None)
    if volume is None or replicas <= 1:
        return None
    return f"must be 0 or 1: {volume.target} is a writable volume; set shared: true there if several instances may write it"
