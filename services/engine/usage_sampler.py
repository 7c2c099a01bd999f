"""How busy instances are, asked only while somebody looks, and not more often for many than for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from services.clock import Clock
from services.engine.port import Engine, EngineError, Usage

FRESH = 2.0
"""Seconds for which an answer does for everybody."""
FORGOTTEN = 30.0


@dataclass(frozen=True)
class Load:
    """`cpu` in cores, over the time since it was asked before; None on the first look. Memory in bytes."""

    cpu: float | None
    memory: int
    memory_limit: int | None


@dataclass(frozen=True)
class _Look:
    at: float
    usage: Usage | None
    load: Load | None


class Loads:
    """An open page asks again and again with `of`; what no page asks for, the engine is not asked for."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._looks: dict[str, _Look] = {}
        self._asking: dict[str, asyncio.Task[_Look]] = {}

    async def of(self, instances: Iterable[str]) -> dict[str, Load]:
        """Those that run. Where the engine does not answer there is no load, and no error."""
        now = self._clock.now()
        self._looks = {id: look for id, look in self._looks.items() if look.at > now - FORGOTTEN}
        wanted = list(instances)
        looks = await asyncio.gather(*(self._look(id, now) for id in wanted))
        return {id: look.load for id, look in zip(wanted, looks, strict=True) if look.load is not None}

    async def _look(self, instance: str, now: float) -> _Look:
        known = self._looks.get(instance)
        if known is not None and known.at > now - FRESH:
            return known
        task = self._asking.get(instance)
        if task is None:
            task = self._asking[instance] = asyncio.create_task(self._ask(instance, known))
            task.add_done_callback(lambda _: self._asking.pop(instance, None))
        return await asyncio.shield(task)

    async def _ask(self, instance: str, before: _Look | None) -> _Look:
        try:
            usage = await self._engine.usage(instance)
        except EngineError:
            usage = None
        now = self._clock.now()
        look = self._looks[instance] = _Look(now, usage, _load(usage, now, before))
        return look


def _load(usage: Usage | None, now: float, before: _Look | None) -> Load | None:
    if usage is None:
        return None
    cpu = None
    if before is not None and before.usage is not None and now > before.at:
        used = usage.cpu_seconds - before.usage.cpu_seconds
        cpu = used / (now - before.at) if used >= 0 else None  # less than before: it was started again
    return Load(cpu, usage.memory, usage.memory_limit)
