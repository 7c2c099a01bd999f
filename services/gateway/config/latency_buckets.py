"""HAProxy's own counters of answers: statuses in `show stat`, latencies in a stick table.

The stick table has an entry for each bucket. One lookup in a map of ranges finds the bucket: one rule per bucket would cost
a request 8 % more (bench/README.md).
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Literal, NamedTuple

from services.gateway.config.model import RUN_DIRECTORY
from services.gateway.config.names import QUEUE_SERVER, service_of
from services.routing.traffic_counts import BUCKET_BOUNDS, GATEWAY_REVISION

TABLE = "answers"
_EDGES = [0, *(round(bound * 1000) for bound in BUCKET_BOUNDS)]
BUCKETS = {f"{low}:{high - 1}": str(number) for number, (low, high) in enumerate(pairwise(_EDGES))}
"""Entries of the map: range of milliseconds, both ends included → bucket."""
_ENTRY = re.compile(r"key=([a-z0-9-]+)-r(\d+)/(\d+) .*gpc0=(\d+)")
_INSTANCE = re.compile(r"([a-z0-9-]+)-r(\d+)-\d+")
_ECON, _ERESP, _STATUSES = 13, 14, slice(39, 44)
"""Columns of `show stat`."""


class CounterKey(NamedTuple):
    """One of HAProxy's counters.

    `kind` is one of:

    - `bucket`: answers by time until they began; `number` is the bucket.
    - `status`: answers of instances by status; `number` is the status's first digit.
    - `failed`: attempts that an instance did not answer, whether they were retried or not.
    - `refused`: requests for which no instance became available.
    - `whole`: every 5xx of the service, including the gateway's own.
    - `passed`: the part of `whole` that came through the backup server and is counted twice.
    """

    service: str
    revision: int
    kind: Literal["bucket", "status", "failed", "refused", "whole", "passed"]
    number: int = 0


def stick_table_rules() -> list[str]:
    """Return the rules for every backend that count the time until an instance began to answer.

    Answers of the backup server get a key that is never read. Either an instance gave such an answer, which is counted with
    the instance, or no instance became available (`refusal_rules`).
    """
    return [
        f"    http-response set-var(txn.took) res.timer.hdr,map_int({RUN_DIRECTORY}/buckets.map,{len(BUCKET_BOUNDS)})",
        f"    http-response track-sc0 srv_name,field(-2,-,0),concat(/,txn.took) table {TABLE}",
        "    http-response sc-inc-gpc(0,0)",
    ]


def refusal_rules(condition: str) -> list[str]:
    """Return the rules for the frontend `held` that count requests for which no instance came."""
    return [
        f"    http-request track-sc0 var(txn.service),concat(-r{GATEWAY_REVISION}/0) table {TABLE} {condition}",
        f"    http-request sc-inc-gpc(0,0) {condition}",
    ]


def stick_table() -> list[str]:
    """Return the stick table; an entry expires half an hour after its last increment."""
    return [
        f"backend {TABLE} from base",
        "    stick-table type string len 64 size 100k expire 30m store gpc(1)",
        "",
    ]


def parse_table(answer: str) -> Counter[CounterKey]:
    """Parse the answer of `show table`."""
    counts: Counter[CounterKey] = Counter()
    for service, revision, bucket, number in _ENTRY.findall(answer):
        if int(revision) == GATEWAY_REVISION:
            counts[CounterKey(service, GATEWAY_REVISION, "refused")] += int(number)
        else:
            counts[CounterKey(service, int(revision), "bucket", int(bucket))] += int(number)
    return counts


def parse_stat(answer: str) -> dict[str, Counter[CounterKey]]:
    """Parse `show stat` of backends and servers.

    Returns instance → its counts, and service → the counts of the whole service.
    """
    counts_by_name: dict[str, Counter[CounterKey]] = {}
    for line in answer.splitlines():
        fields = line.split(",", _STATUSES.stop)
        if len(fields) <= _STATUSES.stop:
            continue
        service = service_of(fields[0])
        statuses = {digit: int(number) for digit, number in enumerate(fields[_STATUSES], start=1) if number.isdigit()}
        if match := _INSTANCE.fullmatch(fields[1]):
            name, revision = match[1], int(match[2])
            failed = {CounterKey(name, revision, "failed"): int(fields[_ECON]) + int(fields[_ERESP])}
            by_status = {CounterKey(name, revision, "status", digit): number for digit, number in statuses.items()}
            counts_by_name[fields[1]] = Counter(by_status | failed)
        elif service is not None and fields[1] == QUEUE_SERVER:
            counts_by_name.setdefault(service, Counter())[CounterKey(service, GATEWAY_REVISION, "passed")] = statuses.get(
                5, 0
            )
        elif service is not None and fields[1] == "BACKEND":
            counts_by_name.setdefault(service, Counter())[CounterKey(service, GATEWAY_REVISION, "whole")] = statuses.get(
                5, 0
            )
    return {name: +counts for name, counts in counts_by_name.items() if any(counts.values())}
