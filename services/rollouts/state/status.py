"""The statuses of a deployment, the transitions between them, and the actions allowed in each."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    PENDING = "pending"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    ROLLBACK_FAILED = "rollback_failed"
    SUPERSEDED = "superseded"


class Kind(StrEnum):
    DEPLOY = "deploy"
    SCALE = "scale"
    ROLLBACK = "rollback"
    RESTART = "restart"
    REMOVE = "remove"


APPLIES_TO_CURRENT_REVISION = frozenset({Kind.SCALE, Kind.RESTART})
"""Kinds that apply to the revision that is current when the deployment begins."""
S = Status
TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.ROLLED_BACK, S.ABORTED, S.ROLLBACK_FAILED, S.SUPERSEDED})
TRANSITIONS: dict[Status, frozenset[Status]] = {
    S.PENDING: frozenset({S.PROGRESSING, S.SUCCEEDED, S.FAILED, S.ROLLED_BACK, S.ABORTED, S.SUPERSEDED}),
    S.PROGRESSING: frozenset({S.PAUSED, S.SUCCEEDED, S.ROLLING_BACK, S.SUPERSEDED}),
    S.PAUSED: frozenset({S.PROGRESSING, S.ROLLING_BACK, S.SUPERSEDED}),
    S.ROLLING_BACK: frozenset({S.ROLLED_BACK, S.ABORTED, S.FAILED, S.ROLLBACK_FAILED, S.SUPERSEDED}),
    **{status: frozenset() for status in TERMINAL},
}
ACTIONS: dict[Status, tuple[str, ...]] = {
    S.PENDING: ("abort",),
    S.PROGRESSING: ("pause", "abort"),
    S.PAUSED: ("resume", "abort"),
    S.ROLLING_BACK: (),
    S.SUCCEEDED: (),
    **dict.fromkeys(TERMINAL - {S.SUCCEEDED}, ("retry",)),
}


class InvalidTransition(Exception):
    """The error for an action or a transition that the current status does not allow."""

    def __init__(self, status: str, wanted: str) -> None:
        allowed = ", ".join(ACTIONS[Status(status)]) or "nothing"
        super().__init__(f"deployment is {status}: {wanted} not possible; allowed: {allowed}")
        self.status = status
        self.wanted = wanted


def check_transition(old: str, new: Status) -> None:
    """Raise InvalidTransition unless TRANSITIONS allows the change of status."""
    if new not in TRANSITIONS[Status(old)]:
        raise InvalidTransition(old, new)


def check_action(status: str, action: str) -> None:
    """Raise InvalidTransition unless ACTIONS allows `action` in `status`."""
    if action not in ACTIONS[Status(status)]:
        raise InvalidTransition(status, action)
