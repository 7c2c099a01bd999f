"""The specs that `make demo-spring` deploys, and its table of versions per phase."""

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
def test_deployed_specs_differ_from_the_files_only_in_registry_and_ledger(way: Way) -> None:
    for body, name in ((STACK.service(way, "prod"), "service"), (STACK.gateway(way), "gateway")):
        file = yaml.safe_load((ROOT / "samples" / "spring" / "deploy" / f"{name}.yaml").read_text("utf-8"))
        changed = {field for field in body if body[field] != file.get(field)}
        assert changed <= {"advertise", "eureka", "environment", "volumes", "profile", "mode"}
        ServiceSpec.model_validate({key: value for key, value in body.items() if key not in ("service", "profile", "mode")})


def test_only_an_external_server_is_configured_in_the_applications() -> None:
    reported = {way: STACK.service(way, "local")["environment"] for way in get_args(Way)}
    assert reported == {"their server": {"EUREKA_URL": STACK.their_server}, "stable": {}, "instances": {}}
    assert STACK.service("their server", "prod")["eureka"] == {"url": STACK.their_server}


def test_table_lists_the_versions_that_answered_in_each_phase() -> None:
    ledger = RequestLog([entry("prod", "1"), entry("deploy", "1"), entry("deploy", "2")], {"prod": 1.0, "deploy": 2.0})
    written = io.StringIO()
    Console(file=written, width=110).print(table(ledger, {}))
    assert [line.split()[-1] for line in written.getvalue().splitlines()[1:3]] == ["1", "2"]
    assert "1 → 2" in written.getvalue()
    assert answered(ledger, "deploy") == {"1", "2"}
