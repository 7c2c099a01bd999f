"""The shapes of the Eureka registry, for the documentation (see shapes.py)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class Registered(BaseModel):
    """A lease, or what consumers are shown of one."""

    id: str
    status: Literal["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"]
    address: str
    renewed_at: datetime


class OwnRegistered(Registered):
    """`instance`: the one of ours that it came from."""

    instance: str | None


class Application(BaseModel):
    """`service`: the one of ours that it is, null for an application that Sluice does not run."""

    name: str
    service: str | None
    registered: list[OwnRegistered]
    shown: list[Registered]


class RegistryConsumer(BaseModel):
    """Who fetches the registry. `age`: seconds since; `interval`: between its fetches, by its habit."""

    address: str
    identity: str
    since: datetime
    fetched_at: datetime
    age: float
    interval: float


class Registry(BaseModel):
    applications: list[Application]
    consumers: list[RegistryConsumer]
