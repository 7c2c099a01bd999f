"""Failed health checks of HAProxy's present worker, in HAProxy's own words."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from services.routing.port import EndpointState

CHECK_PASSED = ("3", "4")
"""Values of `srv_check_result` in `show servers state`: passed, and passed on the condition of no new sessions."""


@dataclass(frozen=True)
class FailedCheck:
    """The last check of a server that is down.

    `text`: HAProxy's words. `status`: the HTTP status, if there was an answer.
    """

    text: str
    status: int | None = None


@dataclass
class FailedChecks:
    """The failed checks of the instances that are down.

    A worker that replaces another takes every server as up until the server's first check. An instance therefore stays
    unhealthy until a check passes, so that a reload does not make it look healthy for a moment.
    """

    _by_instance: dict[str, FailedCheck] = field(default_factory=dict)

    def update(self, failed: Mapping[str, FailedCheck], passed: Collection[str]) -> None:
        """Record the instances whose last check failed, and forget those whose last check passed."""
        remaining = {instance: check for instance, check in self._by_instance.items() if instance not in passed}
        self._by_instance = {**remaining, **failed}

    def forget(self, instance: str) -> None:
        """Forget an instance that is removed."""
        self._by_instance.pop(instance, None)

    def add_to(self, states: Mapping[str, EndpointState]) -> dict[str, EndpointState]:
        """Return the states; admitted instances with a failed check are unhealthy."""
        added = {}
        for instance, state in states.items():
            check = self._by_instance.get(instance) if state.state == "admitted" else None
            added[instance] = state
            if check is not None:
                added[instance] = replace(state, healthy=False, checked=True, check=check.text, check_status=check.status)
        return added


def parse_failed_checks(answer: str) -> dict[str, FailedCheck]:
    """Parse `show stat <backend> 4 -1` of any backends: server → its last check, if that is known."""
    checks: dict[str, FailedCheck] = {}
    columns: list[str] = []
    for row in csv.reader(answer.splitlines()):
        if row and row[0] == "# pxname":
            columns = row
        elif columns and len(row) > columns.index("check_duration"):
            values = dict(zip(columns, row, strict=False))
            if check := _failed_check(values):
                checks[values["svname"]] = check
    return checks


def _failed_check(values: Mapping[str, str]) -> FailedCheck | None:
    # an asterisk marks a check in progress, beside the result of the check before
    status = values["check_status"].removeprefix("* ")
    if not status:
        return None
    code, duration = values["check_code"], values["check_duration"]
    if status.endswith("TOUT") and duration:
        return FailedCheck(f"{status} after {round(int(duration), -2)} ms")
    if status.startswith("L7") and code.isdigit() and code != "0":
        return FailedCheck(f"{status} {code}", int(code))
    return FailedCheck(status)
