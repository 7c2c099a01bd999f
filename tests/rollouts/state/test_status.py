"""Statuses of a deployment: every transition, and every action in each status."""

from __future__ import annotations

from itertools import product

import pytest

from services.rollouts.state.status import (
    ACTIONS,
    TERMINAL,
    TRANSITIONS,
    InvalidTransition,
    Status,
    check_action,
    check_transition,
)

S = Status
ALLOWED = {
    (S.PENDING, S.PROGRESSING),
    (S.PENDING, S.SUCCEEDED),
    (S.PENDING, S.FAILED),
    (S.PENDING, S.ROLLED_BACK),
    (S.PENDING, S.ABORTED),
    (S.PENDING, S.SUPERSEDED),
    (S.PROGRESSING, S.PAUSED),
    (S.PROGRESSING, S.SUCCEEDED),
    (S.PROGRESSING, S.ROLLING_BACK),
    (S.PROGRESSING, S.SUPERSEDED),
    (S.PAUSED, S.PROGRESSING),
    (S.PAUSED, S.ROLLING_BACK),
    (S.PAUSED, S.SUPERSEDED),
    (S.ROLLING_BACK, S.ROLLED_BACK),
    (S.ROLLING_BACK, S.ABORTED),
    (S.ROLLING_BACK, S.FAILED),
    (S.ROLLING_BACK, S.ROLLBACK_FAILED),
    (S.ROLLING_BACK, S.SUPERSEDED),
}


@pytest.mark.parametrize(("old", "new"), list(product(S, S)), ids=lambda status: status.value)
def test_every_transition_is_either_in_the_table_or_refused(old: Status, new: Status) -> None:
    if (old, new) in ALLOWED:
        check_transition(old, new)
    else:
        with pytest.raises(InvalidTransition, match=f"deployment is {old.value}"):
            check_transition(old, new)


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_terminal_status_has_no_transition(status: Status) -> None:
    assert not TRANSITIONS[status]


@pytest.mark.parametrize("status", [status for status in S if status not in TERMINAL])
def test_every_other_status_leads_to_terminal_status(status: Status) -> None:
    reached, before = {status}, set[Status]()
    while reached != before:
        before = set(reached)
        reached |= {new for old in before for new in TRANSITIONS[old]}
    assert reached & TERMINAL


@pytest.mark.parametrize(
    ("status", "actions"),
    [
        (S.PENDING, {"abort"}),
        (S.PROGRESSING, {"pause", "abort"}),
        (S.PAUSED, {"resume", "abort"}),
        (S.ROLLING_BACK, set()),
        (S.SUCCEEDED, set()),
        (S.FAILED, {"retry"}),
        (S.ROLLED_BACK, {"retry"}),
        (S.ABORTED, {"retry"}),
        (S.ROLLBACK_FAILED, {"retry"}),
        (S.SUPERSEDED, {"retry"}),
    ],
)
def test_status_allows_exactly_its_actions(status: Status, actions: set[str]) -> None:
    assert set(ACTIONS[status]) == actions
    for action in ("pause", "resume", "abort", "retry", "promote"):
        if action in actions:
            check_action(status, action)
        else:
            with pytest.raises(InvalidTransition) as refused:
                check_action(status, action)
            assert all(allowed in str(refused.value) for allowed in actions or {"nothing"})


def test_tables_cover_every_status() -> None:
    assert set(TRANSITIONS) == set(ACTIONS) == set(S)
