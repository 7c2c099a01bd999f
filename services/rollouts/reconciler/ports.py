"""The ports of the reconciler: the store, the clock, the engine and the routers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.clock import Clock
from services.engine.port import Engine
from services.routing.port import Router
from services.store.database import Store


@dataclass(frozen=True)
class Ports:
    """Everything outside of the reconciler that a reconcile reads and changes."""

    store: Store
    clock: Clock
    engine: Engine
    routers: Sequence[Router]
