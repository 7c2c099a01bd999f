"""Failures are counted by address, for a while, and no more addresses than fit."""

from __future__ import annotations

import pytest

from services.auth import login_throttle
from services.auth.login_throttle import MAX_FAILURES, WINDOW, LoginThrottle
from tests.support.fakes.clock import FakeClock


def failed(counted: LoginThrottle, remote: str, times: int = MAX_FAILURES) -> None:
    for _ in range(times):
        counted.failed(remote)


def test_after_so_many_failures_one_waits_until_the_first_is_forgotten() -> None:
    clock = FakeClock()
    counted = LoginThrottle(clock)
    failed(counted, "192.0.2.1", MAX_FAILURES - 1)
    assert counted.wait("192.0.2.1") == 0
    clock.jump(WINDOW / 2)
    counted.failed("192.0.2.1")
    assert counted.wait("192.0.2.1") == WINDOW / 2
    assert counted.wait("192.0.2.2") == 0
    clock.jump(WINDOW / 2)
    assert counted.wait("192.0.2.1") == 0


def test_all_addresses_of_an_ipv6_customer_are_one() -> None:
    counted = LoginThrottle(FakeClock())
    for number in range(MAX_FAILURES):
        counted.failed(f"2001:db8::{number}")
    assert counted.wait("2001:db8::ffff") > 0
    assert counted.wait("2001:db8:0:1::1") == 0


def test_no_more_addresses_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "MAX_ADDRESSES", 2)
    counted = LoginThrottle(FakeClock())
    for remote in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        failed(counted, remote)
    assert [counted.wait(remote) > 0 for remote in ("192.0.2.1", "192.0.2.2", "192.0.2.3")] == [False, True, True]
