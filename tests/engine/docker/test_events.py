"""The cache of container views, and the starts that deaths are matched with."""

from __future__ import annotations

from dataclasses import replace

from services.engine.docker.codec import nanoseconds
from services.engine.docker.events import InspectCache
from services.engine.port import ContainerView

ONE = ContainerView("web-r1-1", "web", 1, 1, 1, "h", "c1", "running", "2026-11-24T10:00:00.5Z")
SECOND = 1_000_000_000
STARTED = nanoseconds(ONE.started_at)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def connected(time: Time | None = None) -> InspectCache:
    cache = InspectCache(time or Time())
    cache.connected()
    return cache


def test_cache_is_empty_without_an_event_stream() -> None:
    cache = InspectCache(Time())
    cache.store(ONE, "running", cache.stamp("c1"))
    assert cache.get("c1", "running") is None
    cache.connected()
    cache.store(ONE, "running", cache.stamp("c1"))
    assert cache.get("c1", "running") == ONE
    cache.connected()
    assert cache.get("c1", "running") is None, "what happened before this stream is not known"
    cache.store(ONE, "running", cache.stamp("c1"))
    cache.disconnected()
    assert cache.get("c1", "running") == ONE, "one of two streams is still there"
    cache.disconnected()
    assert cache.get("c1", "running") is None


def test_view_is_not_cached_if_the_container_changed_during_the_inspection() -> None:
    cache = connected()
    stamp = cache.stamp("c1")
    cache.invalidate("c1")
    cache.store(ONE, "running", stamp)
    assert cache.get("c1", "running") is None


def test_view_is_not_cached_if_the_stream_was_lost_during_the_inspection() -> None:
    cache = connected()
    stamp = cache.stamp("c1")
    cache.disconnected()
    cache.connected()
    cache.store(ONE, "running", stamp)
    assert cache.get("c1", "running") is None


def test_cached_view_with_another_state_than_listed_is_dropped() -> None:
    cache = connected()
    cache.store(ONE, "running", cache.stamp("c1"))
    assert cache.get("c1", "exited(0)") is None


def test_cached_view_expires_after_60_seconds() -> None:
    time = Time()
    cache = connected(time)
    cache.store(ONE, "running", cache.stamp("c1"))
    time.now = 59
    assert cache.get("c1", "running") == ONE
    time.now = 60
    assert cache.get("c1", "running") is None


def again(seconds: int) -> ContainerView:
    return replace(ONE, started_at=f"2026-11-24T10:00:{seconds:02}Z")


def test_death_is_matched_once_with_the_start_before_it() -> None:
    cache = connected()
    cache.record_start(ONE, cache.stamp("c1"))
    assert cache.record_death("c1", STARTED - 1) == "", "that death is older than this start"
    assert cache.record_death("c1", STARTED + 1) == ONE.start_id
    assert cache.record_death("c1", STARTED + 1) == "", "it died once"
    assert cache.record_death("c2", STARTED) == ""


def test_later_inspection_does_not_restore_the_start_of_a_dead_container() -> None:
    cache = connected()
    cache.record_start(ONE, cache.stamp("c1"))
    cache.record_death("c1", STARTED + SECOND)
    cache.record_start(ONE, cache.stamp("c1"))
    assert cache.record_death("c1", STARTED + 9 * SECOND) == "", "another start, without an observer"
    cache.record_start(again(20), cache.stamp("c1"))
    cache.record_start(ONE, cache.stamp("c1"))
    assert cache.record_death("c1", STARTED + 30 * SECOND) == again(20).start_id


def test_start_seen_before_a_reconnect_is_not_matched_with_a_death() -> None:
    cache = connected()
    stamp = cache.stamp("c1")
    cache.connected()
    cache.record_start(ONE, stamp)
    assert cache.record_death("c1", STARTED + 1) == ""


def test_destroyed_container_is_removed_from_the_cache() -> None:
    cache = connected()
    cache.store(ONE, "running", cache.stamp("c1"))
    cache.remove("c1")
    assert cache.get("c1", "running") is None and cache.record_death("c1", STARTED + 1) == ""
