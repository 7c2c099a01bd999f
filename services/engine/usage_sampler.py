"""Resource usage of instances, sampled on demand only and shared by all clients that ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from services.clock import Clock
from services.engine.port import Engine, EngineError, Usage

FRESH = 2.0
"""Seconds for which a sample is reused."""
FORGOTTEN = 30.0


@dataclass(frozen=True)
class UsageRate:
    """Usage of one instance over time.

    `cpu` is in cores, averaged since the previous sample; None for the first sample. Memory is in bytes.
    """

    cpu: float | None
    memory: int
    memory_limit: int | None


@dataclass(frozen=True)
class _Sample:
    at: float
    usage: Usage | None
    rate: UsageRate | None


class UsageSampler:
    """Sampler of resource usage, active while callers poll `of`.

    The engine is not asked about instances that no caller asks for.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._looks: dict[str, _Sample] = {}
        self._asking: dict[str, asyncio.Task[_Sample]] = {}

    async def of(self, instances: Iterable[str]) -> dict[str, UsageRate]:
        """Return the usage of those instances that run.

        An engine that does not answer is no error; the instance is left out.
        """
        now = self._clock.now()
        self._looks = {id: look for id, look in self._looks.items() if look.at > now - FORGOTTEN}
        wanted = list(instances)
        looks = await asyncio.gather(*(self._sample(id, now) for id in wanted))
        return {id: look.rate for id, look in zip(wanted, looks, strict=True) if look.rate is not None}

    async def _sample(self, instance: str, now: float) -> _Sample:
        known = self._looks.get(instance)
        if known is not None and known.at > now - FRESH:
            return known
        task = self._asking.get(instance)
        if task is None:
            task = self._asking[instance] = asyncio.create_task(self._query(instance, known))
            task.add_done_callback(lambda _: self._asking.pop(instance, None))
        return await asyncio.shield(task)

    async def _query(self, instance: str, before: _Sample | None) -> _Sample:
        try:
            usage = await self._engine.usage(instance)
        except EngineError:
            usage = None
        now = self._clock.now()
        look = self._looks[instance] = _Sample(now, usage, _usage_rate(usage, now, before))
        return look


def _usage_rate(usage: Usage | None, now: float, before: _Sample | None) -> UsageRate | None:
    if usage is None:
        return None
    cpu = None
    if before is not None and before.usage is not None and now > before.at:
        used = usage.cpu_seconds - before.usage.cpu_seconds
        cpu = used / (now - before.at) if used >= 0 else None  # a smaller value means that the container was restarted
    return UsageRate(cpu, usage.memory, usage.memory_limit)
