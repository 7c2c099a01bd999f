"""Tags and removal of images that Sluice built.

`<service>:latest` follows the serving revision, and images that are no longer needed are removed.
"""

from __future__ import annotations

import asyncio

import structlog
from sqlmodel import Session, col, select

from services.clock import Clock
from services.engine.port import Engine, EngineError
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import TERMINAL
from services.store.database import Store
from services.store.events import ChangeNotifier, append_event
from services.store.tables import Build, Deployment, Event, Revision, Service

log = structlog.get_logger(__name__)
POLL_INTERVAL, RETRY_INTERVAL = 0.1, 5.0
LATEST_LEFT_ALONE = "latest_left_alone"
DEFAULT_RETAINED_BUILDS = 10
"""Number of builds whose images are kept for a service that was never deployed."""


async def update_latest_tags(store: Store, engine: Engine, clock: Clock, notifier: ChangeNotifier) -> None:
    """Keep `<service>:latest` on the image of each service's current revision. Never returns.

    The current revision is that of the last succeeded deployment. The tag is moved only if Sluice built the image for
    this service, also after a restart of Sluice. A `latest` is left alone if it names an image that Sluice did not
    build for the service.
    """
    moved: dict[str, str] = {}
    while True:
        changed = notifier.wait()
        try:
            for service, image in (await store.read(_current_images)).items():
                if moved.get(service) != image:
                    await _move_latest_tag(store, engine, clock, notifier, service, image)
                    moved[service] = image
        except EngineError as error:
            log.warning("could not move the tag latest", error=str(error), again_in=RETRY_INTERVAL)
            await asyncio.sleep(RETRY_INTERVAL)
            continue
        await asyncio.sleep(POLL_INTERVAL)
        await changed.wait()


async def _move_latest_tag(
    store: Store, engine: Engine, clock: Clock, notifier: ChangeNotifier, service: str, image: str
) -> None:
    tag = f"{service}:latest"
    found = await engine.find_image(tag)
    if found is not None and found.id == image:
        return
    if found is None or await store.read(lambda session: _built(session, service, found.id)):
        await engine.tag(image, tag)
    else:
        await store.write(lambda session: _report(session, clock.now(), service, found.id))
        notifier.notify()


async def prune(store: Store, engine: Engine) -> None:
    """Remove images of builds that no revision within its service's `revision_history_limit` needs.

    Images that Sluice did not build are never removed. Raises EngineError.
    """
    keep = await store.read(_tags_to_keep)
    if keep is not None and (removed := await engine.prune(keep)):
        log.info("images_pruned", images=removed)


def _current_images(session: Session) -> dict[str, str]:
    """Return service → image of the current revision, for images that Sluice built for that service."""
    rows = session.exec(
        select(Service.name, Revision.image_id)
        .join(Revision, (col(Revision.service) == Service.name) & (col(Revision.number) == Service.revision))
        .join(Build, (col(Build.image_id) == Revision.image_id) & (col(Build.service) == Service.name))
        .where(col(Service.removed).is_(False))
    )
    return dict(rows.all())


def _built(session: Session, service: str, image: str) -> bool:
    """Return True if Sluice built the image for the service.

    Only the store is asked, because any user can put Sluice's labels on an image.
    """
    query = select(Build.id).where(Build.service == service, col(Build.image_id) == image)
    return session.exec(query).first() is not None


def _report(session: Session, now: float, service: str, image: str) -> None:
    """Record that `latest` was left alone: one event for each image found there."""
    earlier = select(Event).where(Event.service == service, Event.type == LATEST_LEFT_ALONE).order_by(col(Event.id).desc())
    newest = session.exec(earlier).first()
    if newest is None or newest.data.get("image_id") != image:
        message = f"{service}:latest is left alone: Sluice did not build its image for {service}; remove the tag"
        log.warning(LATEST_LEFT_ALONE, service=service, image_id=image)
        append_event(session, now, LATEST_LEFT_ALONE, message, service=service, data={"image_id": image})


def _tags_to_keep(session: Session) -> frozenset[str] | None:
    """Return the tags of the images to keep, None if nothing was ever built."""
    services = session.exec(select(Build.service).distinct()).all()
    keep: set[str] = set()
    for name in services:
        limit = _limit(session, name)
        of_service = select(Build.image).where(Build.service == name).order_by(col(Build.id).desc())
        keep |= set(session.exec(of_service.limit(limit)))
    for name in session.exec(select(Service.name)):
        served = (
            select(Revision.image_id)
            .where(Revision.service == name, col(Revision.served).is_(True))
            .order_by(col(Revision.number).desc())
            .limit(_limit(session, name))
        )
        keep |= set(session.exec(select(Build.image).where(col(Build.image_id).in_(served))))
    under_way = session.exec(select(Deployment).where(col(Deployment.status).not_in(TERMINAL)))
    keep |= {str(row.body["image"]) for row in under_way if row.body.get("image")}
    return frozenset(keep) if services else None


def _limit(session: Session, name: str) -> int:
    service = session.get(Service, name)
    present = session.get(Revision, (name, service.revision)) if service is not None and service.revision else None
    return revision_spec(present).revision_history_limit if present is not None else DEFAULT_RETAINED_BUILDS
