"""The revision of a deploy, from the checked request and the image."""

from __future__ import annotations

from sqlmodel import Session

from services.engine.port import ImageInfo
from services.rollouts.planner.steps import Failed
from services.rollouts.requests.image_defaults import ResolvedImage, resolve_image_defaults
from services.rollouts.requests.image_warnings import image_warnings
from services.rollouts.requests.port_needs import port_needs
from services.rollouts.requests.validation import ValidatedRequest, effective_replicas
from services.rollouts.state.spec_hash import instance_hash
from services.rollouts.state.transitions import StateWriter
from services.store.tables import Deployment, Revision, Service


def set_revision(
    session: Session,
    writer: StateWriter,
    deployment: Deployment,
    current: Revision | None,
    validated: ValidatedRequest,
    image: ImageInfo,
) -> Failed | None:
    """Set the deployment's revision: the current one if nothing but the size changes, else a new one.

    Return the failure if the image leaves the port open although the service needs one.
    """
    service = session.get_one(Service, deployment.service)
    previous_port = current.port if current is not None else None
    resolved = resolve_image_defaults(validated.spec, "port" in validated.effective, image, previous_port)
    deployment.image, deployment.image_id = validated.spec.image, image.id
    deployment.profile, deployment.failure_action = validated.layers.profile, validated.spec.failure_action
    deployment.strategy = validated.spec.effective_strategy
    deployment.replicas = validated.replicas
    if deployment.replicas is None:
        deployment.replicas = effective_replicas(session, service.name, deployment.id)
    if (failed := _unknown_port(session, service.name, current, validated, resolved)) is not None:
        return failed
    for code, text in (*resolved.warnings, *image_warnings(image, validated.spec)):
        writer.warn(session, deployment, code, text)
    same = (
        current is not None
        and current.spec == validated.layers.base
        and (current.profile, current.overrides) == (validated.layers.profile, validated.layers.overrides)
        and current.effective == validated.effective
        and current.image_id == image.id
    )
    if current is not None and same:
        current.image_digest = current.image_digest or image.digest
        session.add(current)
        deployment.revision = current.number
        return None
    port, check = resolved.port, resolved.healthcheck
    revision = Revision(
        service=service.name,
        number=service.next_revision,
        spec=validated.layers.base,
        profile=validated.layers.profile,
        overrides=validated.layers.overrides,
        effective=validated.effective,
        image=validated.spec.image or "",
        image_id=image.id,
        image_digest=image.digest,
        port=port,
        hash=instance_hash(image.id, port, check, validated.spec),
        healthcheck={**check.model_dump(mode="json"), "any_below_500": check.any_below_500},
        deployment=deployment.id or 0,
        created_at=writer.clock.now(),
    )
    service.next_revision += 1
    service.removed = False
    session.add(service)
    session.add(revision)
    session.flush()
    deployment.revision = revision.number
    return None


def _unknown_port(
    session: Session, service: str, current: Revision | None, validated: ValidatedRequest, resolved: ResolvedImage
) -> Failed | None:
    """Return the failure of a deploy whose image decides no port, although something leads to the service.

    A service that had a port becomes a worker only by `port: null`, since others may know it by its address alone.
    """
    if not resolved.unknown_port or not resolved.image.inspected:
        return None
    needs = port_needs(session, service, validated.layers.effective(), validated.spec, current)
    reasons = [need.clause for need in needs]
    if current is not None and current.port is not None:
        reasons.append(f"revision {current.number} has port {current.port}")
    if not reasons:
        return None
    remedy = "set port, or port: null for a worker without requests"
    return Failed("image_port_unknown", f"{resolved.unknown_port}, but {', '.join(reasons)}; {remedy}")
