"""The oracle of the services' status."""

from __future__ import annotations

from bench.status_oracle import AGREES_WITHIN, DETECTION_SECONDS, StatusOracle

LONG = DETECTION_SECONDS + AGREES_WITHIN


def _oracle(*answers: float) -> StatusOracle:
    oracle = StatusOracle(["web"])
    oracle._answers["web"].times.extend(answers)
    return oracle


def test_silent_service_that_is_shown_as_serving_for_ten_seconds_is_a_violation() -> None:
    oracle = _oracle(100.0)
    oracle.compare("web", "serving", 100.0 + DETECTION_SECONDS, 1000.0)
    oracle.compare("web", "serving", 100.0 + LONG - 1, 1000.0)
    assert oracle.take_violations() == []
    oracle.compare("web", "serving", 100.0 + LONG, 1000.0)
    oracle.compare("web", "serving", 100.0 + LONG + 1, 1000.0)
    assert len(oracle.take_violations()) == 1


def test_silent_service_that_is_shown_as_down_is_none() -> None:
    oracle = _oracle(100.0)
    oracle.compare("web", "down", 100.0 + LONG + 1, 1000.0)
    oracle.compare("web", "serving", 100.0 + LONG + 5, 1000.0)
    assert oracle.take_violations() == []
    assert oracle.shown_after == [LONG + 1]


def test_answering_service_that_is_shown_as_down_for_ten_seconds_is_a_violation() -> None:
    oracle = _oracle(*(100.0 + second / 4 for second in range(68)))
    oracle.compare("web", "down", 116.9, 1000.0)
    assert oracle.take_violations() == []
    oracle._answers["web"].times.extend(117.0 + second / 4 for second in range(41))
    oracle.compare("web", "down", 127.0, 1000.0)
    assert len(oracle.take_violations()) == 1


def test_status_is_not_judged_while_sluice_has_just_started() -> None:
    oracle = _oracle(100.0)
    oracle.compare("web", "serving", 100.0 + DETECTION_SECONDS, 1.0)
    oracle.compare("web", "serving", 100.0 + LONG + 1, 2.0)
    assert oracle.take_violations() == []
