"""Resource usage of instances, sampled on demand only and shared by all clients that ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from services.clock import Clock
from services.engine.port import Engine, EngineError, Usage

SAMPLE_TTL = 2.0
"""Seconds for which a sample is reused."""
SAMPLE_RETENTION = 30.0


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
        self._samples: dict[str, _Sample] = {}
        self._queries: dict[str, asyncio.Task[_Sample]] = {}

    async def of(self, instances: Iterable[str]) -> dict[str, UsageRate]:
        """Return the usage of those instances that run.

        An engine that does not answer is no error; the instance is left out.
        """
        now = self._clock.now()
        self._samples = {id: sample for id, sample in self._samples.items() if sample.at > now - SAMPLE_RETENTION}
        ids = list(instances)
        samples = await asyncio.gather(*(self._sample(id, now) for id in ids))
        return {id: sample.rate for id, sample in zip(ids, samples, strict=True) if sample.rate is not None}

    async def _sample(self, instance: str, now: float) -> _Sample:
        cached = self._samples.get(instance)
        if cached is not None and cached.at > now - SAMPLE_TTL:
            return cached
        task = self._queries.get(instance)
        if task is None:
            task = self._queries[instance] = asyncio.create_task(self._query(instance, cached))
            task.add_done_callback(lambda _: self._queries.pop(instance, None))
        return await asyncio.shield(task)

    async def _query(self, instance: str, previous: _Sample | None) -> _Sample:
        try:
            usage = await self._engine.usage(instance)
        except EngineError:
            usage = None
        now = self._clock.now()
        sample = self._samples[instance] = _Sample(now, usage, _usage_rate(usage, now, previous))
        return sample


def _usage_rate(usage: Usage | None, now: float, previous: _Sample | None) -> UsageRate | None:
    if usage is None:
        return None
    cpu = None
    if previous is not None and previous.usage is not None and now > previous.at:
        used = usage.cpu_seconds - previous.usage.cpu_seconds
        cpu = used / (now - previous.at) if used >= 0 else None  # a smaller value means that the container was restarted
    return UsageRate(cpu, usage.memory, usage.memory_limit)
