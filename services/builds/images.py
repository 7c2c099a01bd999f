"""The names and the end of images that Sluice built: `<service>:latest` follows what serves, and what nobody needs goes."""

from __future__ import annotations

import asyncio

import structlog
from sqlmodel import Session, col, select

from services.engine.port import Engine, EngineError
from services.rollouts.phases import TERMINAL
from services.rollouts.world import spec_of
from services.store.db import Store
from services.store.events import Listeners
from services.store.tables import Build, Deployment, Revision, Service

log = structlog.get_logger(__name__)
PACE, AGAIN = 0.1, 5.0
KEPT = 10
"""Builds whose images are kept of a service that was never deployed."""


async def follow_latest(store: Store, engine: Engine, listeners: Listeners) -> None:
    """For ever: a service's present revision is the last one whose deployment succeeded. Where its image was built for this
    service, `<service>:latest` names it, after a restart as well."""
    named: dict[str, str] = {}
    while True:
        woken = listeners.next()
        try:
            for service, image in (await store.read(_present)).items():
                if named.get(service) != image:
                    await engine.tag(image, f"{service}:latest")
                    named[service] = image
        except EngineError as error:
            log.warning("latest could not be moved", error=str(error), again_in=AGAIN)
            await asyncio.sleep(AGAIN)
            continue
        await asyncio.sleep(PACE)
        await woken.wait()


async def prune(store: Store, engine: Engine) -> None:
    """Remove the images of builds that no revision within its service's `revision_history_limit` needs; never what Sluice
    did not build. EngineError."""
    keep = await store.read(_kept)
    if keep is not None and (gone := await engine.prune(keep)):
        log.info("images_pruned", images=gone)


def _present(session: Session) -> dict[str, str]:
    """Service → the image that serves, where Sluice built it for that service."""
    rows = session.exec(
        select(Service.name, Revision.image_id)
        .join(Revision, (col(Revision.service) == Service.name) & (col(Revision.number) == Service.revision))
        .join(Build, (col(Build.image_id) == Revision.image_id) & (col(Build.service) == Service.name))
        .where(col(Service.removed).is_(False))
    )
    return dict(rows.all())


def _kept(session: Session) -> frozenset[str] | None:
    """Tags. None when nothing was ever built."""
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
    return spec_of(present).revision_history_limit if present is not None else KEPT
