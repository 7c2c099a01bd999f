"""Builders of planner inputs: `serving("old-1")` is the old version's instance in slot 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.planner import plan
from services.rollouts.planner.steps import Plan, Step

NOW = 1000.0
OLD, NEW = 1, 2


def to(replicas: int = 3, spec_hash: str = "new", **fields: Any) -> DesiredState:
    """Return the desired state of a running deployment."""
    return DesiredState(**{"hash": spec_hash, "replicas": replicas, "deployment": NEW, **fields})


def steady(replicas: int = 3, **fields: Any) -> DesiredState:
    return DesiredState(hash="new", replicas=replicas, **fields)


def rolling_back(replicas: int = 3, **fields: Any) -> DesiredState:
    return to(replicas, "old", rolled_back_deployment=NEW, started_at=NOW - 1, **fields)


def instance(id: str, **fields: Any) -> ObservedInstance:
    """Return an observed instance; `new-2` is the new version's, in slot 2."""
    spec_hash, slot = id.split("-")
    born = {"new": NEW, "old": OLD}.get(spec_hash, 0)
    seen = ObservedInstance(id=id, slot=int(slot), hash=spec_hash, deployment=born, container="none", created_at=NOW - 30)
    return replace(seen, **fields)


def starting(id: str, **fields: Any) -> ObservedInstance:
    return instance(id, **{"container": "running", "started_at": NOW - 5, **fields})


def ready(id: str, **fields: Any) -> ObservedInstance:
    return starting(id, **{"ready_at": NOW - 1, **fields})


def serving(id: str, **fields: Any) -> ObservedInstance:
    return ready(id, **{"admitted": True, "known_to_router": True, "drained": False, **fields})


def sick(id: str, since: float = NOW - 5, **fields: Any) -> ObservedInstance:
    return serving(id, healthy=False, unhealthy_since=since, **fields)


def dead(id: str, **fields: Any) -> ObservedInstance:
    return instance(id, **{"container": "exited", "died": True, "exit_description": "exited with code 1", **fields})


def refused(id: str, **fields: Any) -> ObservedInstance:
    return instance(id, failure=("no_capacity", "cannot allocate memory"), **fields)


def draining(id: str, **fields: Any) -> ObservedInstance:
    return ready(id, **{"known_to_router": True, "drained": False, "in_flight": 1, "draining_since": NOW - 2, **fields})


def drained(id: str, **fields: Any) -> ObservedInstance:
    return draining(id, **{"drained": True, "in_flight": 0, **fields})


def worker(id: str, **fields: Any) -> ObservedInstance:
    return starting(id, routed=False, **fields)


def planned_steps(target: DesiredState, *world: ObservedInstance) -> tuple[Step, ...]:
    return plan(target, world, NOW).steps


def plan_for(target: DesiredState, *world: ObservedInstance) -> Plan:
    return plan(target, world, NOW)


def old_instances(count: int = 3) -> list[ObservedInstance]:
    return [serving(f"old-{slot}") for slot in range(1, count + 1)]


def new_instances(count: int = 3) -> list[ObservedInstance]:
    return [serving(f"new-{slot}") for slot in range(1, count + 1)]
