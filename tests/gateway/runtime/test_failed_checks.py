"""HAProxy's words for failed checks."""

from __future__ import annotations

import pytest

from services.gateway.runtime.failed_checks import FailedCheck, FailedChecks, parse_failed_checks
from services.routing.port import EndpointState

HEADER = "# pxname,svname,check_status,check_code,check_duration,last_chk,"


@pytest.mark.parametrize(
    ("columns", "check"),
    [
        ("L7STS,503,1,Layer7 wrong status", FailedCheck("L7STS 503", 503)),
        ("* L7TOUT,,2001,", FailedCheck("L7TOUT after 2000 ms")),
        ("L4CON,,0,", FailedCheck("L4CON")),
        ("L7RSP,0,3,", FailedCheck("L7RSP")),
        ("HANA,,,Health analyze", FailedCheck("HANA")),
    ],
)
def test_check_is_parsed_into_its_words_and_status(columns: str, check: FailedCheck) -> None:
    answer = f"{HEADER}\nweb.a,hold,,,,,\nweb.a,web-r1-1,{columns},\n\n"
    assert parse_failed_checks(answer + answer) == {"web-r1-1": check}


def test_failed_check_stays_until_a_check_passes_or_the_instance_is_removed() -> None:
    checks, states = FailedChecks(), {"web-r1-1": EndpointState("admitted"), "web-r1-2": EndpointState("admitted")}
    checks.update({"web-r1-1": FailedCheck("L4CON"), "web-r1-2": FailedCheck("L4CON")}, passed=())
    checks.update({}, passed=())
    assert [state.check for state in checks.add_to(states).values()] == ["L4CON", "L4CON"]
    checks.update({}, passed={"web-r1-1"})
    checks.forget("web-r1-2")
    assert checks.add_to(states) == states
