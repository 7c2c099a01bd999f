"""What make demo-spring deploys, and what it says when the wrong version answers."""

from __future__ import annotations

import io
from typing import get_args

import pytest
import yaml
from rich.console import Console

from bench.console import table
from bench.spring_stack import Stack, Way, answered
from services.loadtest.request_log import RequestLog, RequestRecord
from services.spec import ServiceSpec
from tests.support.docker_cli import ROOT

STACK = Stack("orders", "http://10.0.0.5:8761/eureka/")


def entry(phase: str, version: str) -> RequestRecord:
    return RequestRecord(0.1, phase, "GET", False, 0.0, 0.01, 200, "sample-service-r1-1", "", "", version)


@pytest.mark.parametrize("way", get_args(Way))
def test_what_is_deployed_are_the_files_but_for_the_registry_and_the_ledger(way: Way) -> None:
    for body, name in ((STACK.service(way, "prod"), "service"), (STACK.gateway(way), "gateway")):
        file = yaml.safe_load((ROOT / "samples" / "spring" / "deploy" / f"{name}.yaml").read_text("utf-8"))
        changed = {field for field in body if body[field] != file.get(field)}
        assert changed <= {"advertise", "eureka", "environment", "volumes", "profile", "mode"}
        ServiceSpec.model_validate({key: value for key, value in body.items() if key not in ("service", "profile", "mode")})


def test_only_their_own_server_is_told_to_the_applications() -> None:
    reported = {way: STACK.service(way, "local")["environment"] for way in get_args(Way)}
    assert reported == {"their server": {"EUREKA_URL": STACK.their_server}, "stable": {}, "instances": {}}
    assert STACK.service("their server", "prod")["eureka"] == {"url": STACK.their_server}


def test_the_table_says_which_versions_answered_in_each_phase() -> None:
    ledger = RequestLog([entry("prod", "1"), entry("deploy", "1"), entry("deploy", "2")], {"prod": 1.0, "deploy": 2.0})
    written = io.StringIO()
    Console(file=written, width=110).print(table(ledger, {}))
    assert [line.split()[-1] for line in written.getvalue().splitlines()[1:3]] == ["1", "2"]
    assert "1 → 2" in written.getvalue()
    assert answered(ledger, "deploy") == {"1", "2"}
