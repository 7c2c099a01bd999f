"""Snapshots of a service from the store: current revision, running deployment and instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam
from sqlmodel import Session, col, select

from services.store.tables import Deployment, Instance, Revision, Service

ACTIVE = ("progressing", "paused", "rolling_back")
_NAME: BindParameter[str] = bindparam("name")
_ACTIVE_DEPLOYMENT = select(Deployment).where(Deployment.service == _NAME, col(Deployment.status).in_(ACTIVE))
_INSTANCES = select(Instance).where(Instance.service == _NAME, col(Instance.stopped_at).is_(None)).order_by(col(Instance.id))
_REVISIONS = select(Revision).where(
    Revision.service == _NAME, col(Revision.number).in_(bindparam("numbers", expanding=True))
)
"""The three queries above are built once.

They run in every reconcile, and building a query takes as long as running it.
"""


@dataclass(frozen=True)
class ServiceSnapshot:
    """A service as the store has it: its running deployment, its revisions, and its instances that exist."""

    service: Service
    deployment: Deployment | None
    revisions: Mapping[int, Revision]
    instances: Sequence[Instance]

    @property
    def current_revision(self) -> Revision | None:
        return self.revisions.get(self.service.revision) if self.service.revision is not None else None

    @property
    def desired_revision(self) -> Revision | None:
        """The revision that the service is moving to, or else its current one."""
        deployment = self.deployment
        if deployment is None or deployment.kind == "remove" or deployment.revision is None:
            return self.current_revision
        return self.current_revision if deployment.status == "rolling_back" else self.revisions[deployment.revision]

    def revision_of(self, instance: Instance) -> Revision:
        return self.revisions[instance.revision]


def load_service(session: Session, name: str) -> ServiceSnapshot | None:
    """Return the snapshot of a service, or None if the store does not know the service."""
    service = session.get(Service, name)
    if service is None:
        return None
    deployment = session.exec(_ACTIVE_DEPLOYMENT, params={"name": name}).first()
    instances = session.exec(_INSTANCES, params={"name": name}).all()
    numbers = {row.revision for row in instances} | {service.revision}
    if deployment is not None:
        numbers |= {deployment.revision, deployment.from_revision}
    known = session.exec(_REVISIONS, params={"name": name, "numbers": [each for each in numbers if each is not None]})
    return ServiceSnapshot(service, deployment, {row.number: row for row in known}, instances)
