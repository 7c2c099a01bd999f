"""Response schemas of the Eureka registry, for the documentation (see schemas.py)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class Registered(BaseModel):
    """A lease, or its entry in the consumer view."""

    id: str
    status: Literal["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"]
    address: str
    renewed_at: datetime


class OwnRegistered(Registered):
    """A lease; `instance` is the instance of Sluice that it came from."""

    instance: str | None


class Application(BaseModel):
    """An application; `service` is its service, null if Sluice does not run it."""

    name: str
    service: str | None
    registered: list[OwnRegistered]
    shown: list[Registered]


class RegistryConsumer(BaseModel):
    """A client that fetches the registry.

    `age` is the number of seconds since its last fetch, `interval` the usual time between its fetches.
    """

    address: str
    identity: str
    since: datetime
    fetched_at: datetime
    age: float
    interval: float


class Registry(BaseModel):
    applications: list[Application]
    consumers: list[RegistryConsumer]
