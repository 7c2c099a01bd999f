"""What HAProxy has answered, read from its present worker: one that was replaced shows its counters to nobody any more."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress

from services.gateway.config.latency_buckets import TABLE, Count, parse_stat, parse_table
from services.gateway.config.model import backend_of
from services.gateway.runtime.counter_deltas import CounterDeltas, CounterSample
from services.gateway.runtime.runtime_api import CURRENT, RuntimeApi
from services.routing.port import RoutingError
from services.routing.traffic_counts import GATEWAY_REVISION, CountKey

# Backends before servers: so a 5xx is never known of the whole and not of the part that gave it.
_ALL = f"show info; {CURRENT} show table {TABLE}; {CURRENT} show stat -1 2 -1; {CURRENT} show stat -1 4 -1"
_FACT = re.compile(r"^(Pid|Start_time_sec): (\d+)$", re.MULTILINE)


class Counters:
    """Implements services.routing.traffic_counts.Counting."""

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._tally: CounterDeltas[Count] = CounterDeltas()
        self._last: list[CounterSample[Count]] = []
        """Of what has gone since they were asked."""
        self._own: Counter[str] = Counter()
        """Service → 5xx that no instance gave, as far as they have not been told."""

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """Not while the worker is replaced."""
        gone = len(self._last)  # what goes while they are read has been told of, or comes after, and is told next time
        readings = _samples(await self._api.query(_ALL))
        last, self._last = self._last[:gone], self._last[gone:]
        news = self._tally.update([*last, *readings], time.monotonic())
        return cells(news, self._own) if news is not None else None

    async def before_reload(self) -> None:
        """The present worker is about to be replaced: what it answers from now on is not counted."""
        with suppress(RoutingError):
            self._last += _samples(await self._api.query(_ALL))

    async def before_removal(self, service: str, instance: str) -> None:
        """It is in maintenance, and about to go from the worker's list, and its counters with it."""
        answer = await self._api.query(f"show info; {CURRENT} show stat {backend_of(service)} 4 -1")
        self._last += [reading for reading in _samples(answer) if reading.id.endswith(f"/{instance}")]


def _samples(answer: str) -> list[CounterSample[Count]]:
    """Of a worker, of each of its services, and of each of their instances: those come and go while it lives. Nothing for an
    answer that is not whole."""
    facts = dict(_FACT.findall(answer))
    if "Start_time_sec" not in facts or "Pid" not in facts:
        return []
    id = f"{facts['Pid']}@{facts['Start_time_sec']}"
    return [
        CounterSample(id, parse_table(answer)),
        *(CounterSample(f"{id}/{name}", it) for name, it in parse_stat(answer).items()),
    ]


def cells(news: Mapping[Count, int], own: Counter[str]) -> Counter[CountKey]:
    """What HAProxy's counters say together. `own` is carried on from call to call: the counters of a service and those of
    its instances are not read in the same instant, so it may be less than nothing for a moment.

    An answer that the gateway gave itself is laid at the door of that revision of which most attempts failed meanwhile.
    """
    found: Counter[CountKey] = Counter()
    failed: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (service, revision, kind, number), more in news.items():
        if kind == "bucket":
            found[CountKey(service, revision, None, number)] += more
        elif kind == "status":
            found[CountKey(service, revision, number, None)] += more
            own[service] -= more if number == 5 else 0
        elif kind == "failed":
            failed[service][revision] += more
        elif kind == "refused":
            found[CountKey(service, GATEWAY_REVISION, 5, None)] += more
        else:
            own[service] += more if kind == "whole" else -more
    for service, number in list(own.items()):
        if number > 0:
            ((revision, _),) = failed[service].most_common(1) or ((GATEWAY_REVISION, 0),)
            found[CountKey(service, revision, 5, None)] += number
            del own[service]
    return found
