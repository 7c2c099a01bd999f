"""Failed sign-ins are counted per address, for a limited time and a limited number of addresses."""

from __future__ import annotations

import pytest

from services.auth import login_throttle
from services.auth.login_throttle import FAILURE_WINDOW, MAX_FAILURES, LoginThrottle
from tests.support.fakes.clock import FakeClock


def failed(counted: LoginThrottle, remote: str, times: int = MAX_FAILURES) -> None:
    for _ in range(times):
        counted.failed(remote)


def test_login_throttle_delays_an_address_until_its_first_failure_expires() -> None:
    clock = FakeClock()
    counted = LoginThrottle(clock)
    failed(counted, "192.0.2.1", MAX_FAILURES - 1)
    assert counted.wait("192.0.2.1") == 0
    clock.jump(FAILURE_WINDOW / 2)
    counted.failed("192.0.2.1")
    assert counted.wait("192.0.2.1") == FAILURE_WINDOW / 2
    assert counted.wait("192.0.2.2") == 0
    clock.jump(FAILURE_WINDOW / 2)
    assert counted.wait("192.0.2.1") == 0


def test_login_throttle_counts_an_ipv6_network_as_one_address() -> None:
    counted = LoginThrottle(FakeClock())
    for number in range(MAX_FAILURES):
        counted.failed(f"2001:db8::{number}")
    assert counted.wait("2001:db8::ffff") > 0
    assert counted.wait("2001:db8:0:1::1") == 0


def test_login_throttle_limits_the_number_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "MAX_ADDRESSES", 2)
    counted = LoginThrottle(FakeClock())
    for remote in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        failed(counted, remote)
    assert [counted.wait(remote) > 0 for remote in ("192.0.2.1", "192.0.2.2", "192.0.2.3")] == [False, True, True]
