"""The image of a stored revision, which is pulled again if the engine has lost it."""

from __future__ import annotations

from sqlmodel import Session

from services.engine.port import IMAGE_GONE, Engine, EngineError, ImageInfo
from services.rollouts.requests.validation import current_revision, effective_replicas
from services.rollouts.state.status import APPLIES_TO_CURRENT_REVISION, Kind
from services.store.tables import Deployment, Revision, Service


def revision_to_start(session: Session, deployment: Deployment) -> Revision | None:
    """Return the stored revision of which the pending deployment starts instances; None if it starts none.

    None for a deploy too, which makes its revision when it begins.
    """
    if deployment.kind in (Kind.DEPLOY, Kind.REMOVE):
        return None
    service = session.get_one(Service, deployment.service)
    current = current_revision(session, service)
    if current is None:
        return None
    if deployment.kind == Kind.SCALE and (deployment.replicas or 0) <= service.replicas:
        return None
    if deployment.kind != Kind.SCALE and effective_replicas(session, service.name, deployment.id) == 0:
        return None
    return (
        current
        if deployment.kind in APPLIES_TO_CURRENT_REVISION
        else session.get(Revision, (service.name, deployment.revision))
    )


async def ensure_image(engine: Engine, revision: Revision) -> ImageInfo:
    """Return the revision's image; pull it by its digest if the engine has lost it.

    Raises EngineError `image_gone` if it cannot be pulled, and a transient one if the engine does not answer.
    """
    present = await engine.find_image(revision.image_id)
    if present is not None:
        return present
    if revision.image_digest is None:
        raise EngineError(unpullable(revision), reason=IMAGE_GONE)
    try:
        image = await engine.pull(revision.image_digest)
    except EngineError as error:
        if error.transient:
            raise
        raise EngineError(_not_pulled(revision, str(error)), reason=IMAGE_GONE) from error
    if image.id != revision.image_id:
        raise EngineError(_not_pulled(revision, f"it is another image there, {image.id}"), reason=IMAGE_GONE)
    return image


def unpullable(revision: Revision) -> str:
    """Return the sentence for an image that is in no registry that Sluice knows of."""
    return (
        f"{_lost(revision)}, and no registry is known to have it: it was built or loaded here; "
        "load it again (docker load), or build it and deploy the new image"
    )


def _not_pulled(revision: Revision, why: str) -> str:
    return (
        f"{_lost(revision)}, and {revision.image_digest} cannot be pulled: {why}; "
        "make it available there (docker login, docker push), or deploy another image"
    )


def _lost(revision: Revision) -> str:
    return f"the image {revision.image} ({revision.image_id}) of revision {revision.number} is no longer on this host"
