"""HAProxy's counters of answers, read from the current worker.

A replaced worker does not show its counters any more.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress

from services.gateway.config.latency_buckets import TABLE, CounterKey, parse_stat, parse_table
from services.gateway.config.names import live_backend
from services.gateway.runtime.counter_deltas import CounterDeltas, CounterSample
from services.gateway.runtime.runtime_api import CURRENT, RuntimeApi
from services.routing.port import RoutingError
from services.routing.traffic_counts import GATEWAY_REVISION, CountKey

# Backends before servers: a 5xx is then never counted for the whole service and not for the instance that gave it.
_ALL = f"show info; {CURRENT} show table {TABLE}; {CURRENT} show stat -1 2 -1; {CURRENT} show stat -1 4 -1"
_FACT = re.compile(r"^(Pid|Start_time_sec): (\d+)$", re.MULTILINE)


class Counters:
    """HAProxy's response counters; implements services.routing.traffic_counts.TrafficCounter."""

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._deltas: CounterDeltas[CounterKey] = CounterDeltas()
        self._last: list[CounterSample[CounterKey]] = []
        """Last samples of workers and servers that have gone since the counters were read."""
        self._gateway_errors: Counter[str] = Counter()
        """Service → 5xx that no instance gave, as far as they have not been reported."""

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """Return the answers counted since the previous call.

        Must not run while the worker is being replaced. Raises RoutingError.
        """
        gone = len(self._last)  # samples that are added during the query are for the next call
        samples = _samples(await self._api.query(_ALL))
        last, self._last = self._last[:gone], self._last[gone:]
        increases = self._deltas.update([*last, *samples], time.monotonic())
        return combine_counts(increases, self._gateway_errors) if increases is not None else None

    async def before_reload(self) -> None:
        """Take a last sample of the current worker, which is about to be replaced.

        Its later answers are not counted.
        """
        with suppress(RoutingError):
            self._last += _samples(await self._api.query(_ALL))

    async def before_removal(self, service: str, instance: str) -> None:
        """Take a last sample of an instance's server, which is about to be removed with its counters.

        The server is in maintenance.
        """
        answer = await self._api.query(f"show info; {CURRENT} show stat {live_backend(service)} 4 -1")
        self._last += [sample for sample in _samples(answer) if sample.id.endswith(f"/{instance}")]


def _samples(answer: str) -> list[CounterSample[CounterKey]]:
    """Return samples of the worker, of each of its services and of each of their instances.

    Services and instances come and go while the worker lives. An incomplete answer gives no samples.
    """
    facts = dict(_FACT.findall(answer))
    if "Start_time_sec" not in facts or "Pid" not in facts:
        return []
    id = f"{facts['Pid']}@{facts['Start_time_sec']}"
    return [
        CounterSample(id, parse_table(answer)),
        *(CounterSample(f"{id}/{name}", counts) for name, counts in parse_stat(answer).items()),
    ]


def combine_counts(increases: Mapping[CounterKey, int], gateway_errors: Counter[str]) -> Counter[CountKey]:
    """Return the increases of HAProxy's counters, combined by CountKey.

    `gateway_errors` carries over from call to call. The counters of a service and those of its instances are not read at
    the same instant, so a value in `gateway_errors` may be negative for a moment.

    A 5xx that the gateway gave itself is attributed to the revision with the most failed attempts in `increases`, or to
    GATEWAY_REVISION if none failed.
    """
    counts: Counter[CountKey] = Counter()
    failed: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (service, revision, kind, number), more in increases.items():
        if kind == "bucket":
            counts[CountKey(service, revision, None, number)] += more
        elif kind == "status":
            counts[CountKey(service, revision, number, None)] += more
            gateway_errors[service] -= more if number == 5 else 0
        elif kind == "failed":
            failed[service][revision] += more
        elif kind == "refused":
            counts[CountKey(service, GATEWAY_REVISION, 5, None)] += more
        else:
            gateway_errors[service] += more if kind == "whole" else -more
    for service, number in list(gateway_errors.items()):
        if number > 0:
            ((revision, _),) = failed[service].most_common(1) or ((GATEWAY_REVISION, 0),)
            counts[CountKey(service, revision, 5, None)] += number
            del gateway_errors[service]
    return counts
