"""HAProxy's counters combined: each error is counted once, for the revision that caused it."""

from __future__ import annotations

from collections import Counter

from services.gateway.config.latency_buckets import CounterKey, parse_table
from services.gateway.runtime.counters import combine_counts
from services.routing.traffic_counts import GATEWAY_REVISION, CountKey


def test_gateway_error_counts_for_the_revision_with_most_failed_attempts() -> None:
    news = {
        CounterKey("web", GATEWAY_REVISION, "whole"): 5,
        CounterKey("web", 1, "status", 5): 2,
        CounterKey("web", 1, "failed"): 1,
        CounterKey("web", 2, "failed"): 9,
    }
    assert combine_counts(news, Counter()) == {CountKey("web", 1, 5, None): 2, CountKey("web", 2, 5, None): 3}


def test_failed_attempts_that_succeeded_on_another_instance_are_no_errors() -> None:
    assert combine_counts({CounterKey("web", 2, "failed"): 9, CounterKey("web", 1, "status", 2): 9}, Counter()) == {
        CountKey("web", 1, 2, None): 9
    }


def test_request_through_the_backup_server_is_counted_once() -> None:
    held = {
        CounterKey("web", GATEWAY_REVISION, "whole"): 2,
        CounterKey("web", GATEWAY_REVISION, "passed"): 1,
        CounterKey("web", 1, "status", 5): 1,
    }
    assert combine_counts(held, Counter()) == {CountKey("web", 1, 5, None): 1}
    refused = {
        CounterKey("web", GATEWAY_REVISION, "whole"): 1,
        CounterKey("web", GATEWAY_REVISION, "passed"): 1,
        CounterKey("web", GATEWAY_REVISION, "refused"): 1,
    }
    assert combine_counts(refused, Counter()) == {CountKey("web", GATEWAY_REVISION, 5, None): 1}


def test_error_is_counted_once_if_its_status_is_read_before_its_total() -> None:
    gateway_errors: Counter[str] = Counter()
    assert combine_counts({CounterKey("web", 1, "status", 5): 1}, gateway_errors) == {CountKey("web", 1, 5, None): 1}
    assert combine_counts({CounterKey("web", GATEWAY_REVISION, "whole"): 1}, gateway_errors) == {}
    assert combine_counts({CounterKey("web", GATEWAY_REVISION, "whole"): 1}, gateway_errors) == {
        CountKey("web", GATEWAY_REVISION, 5, None): 1
    }


def test_backup_server_entries_belong_to_no_revision() -> None:
    shown = (
        "# table: answers, type: string, size:102400, used:3\n"
        "0x7f2941a5d308: key=web-api-r12/8 use=0 exp=596864 shard=0 gpc0=36\n"
        "0x7f2941a5d309: key=hold/2 use=0 exp=596864 shard=0 gpc0=5\n"
        "0x7f2941a5d310: key=web-api-r0/0 use=0 exp=596864 shard=0 gpc0=2\n"
    )
    assert parse_table(shown) == {
        CounterKey("web-api", 12, "bucket", 8): 36,
        CounterKey("web-api", GATEWAY_REVISION, "refused"): 2,
    }
