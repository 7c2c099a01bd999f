"""A service in the write transaction of its reconciliation."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from services.rollouts.reconciler.observation import Observation
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.rollouts.state.transitions import StateWriter


@dataclass(frozen=True)
class ServiceTransaction:
    """The rows of a service in the open write transaction, and the observation that preceded it."""

    session: Session
    writer: StateWriter
    snapshot: ServiceSnapshot
    observation: Observation

    @property
    def deployment_id(self) -> int | None:
        return self.snapshot.deployment.id if self.snapshot.deployment is not None else None
