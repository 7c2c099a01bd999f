"""Scope × binding × every spec field that can affect other services. A new field must be classified here."""

from __future__ import annotations

from typing import Any

import pytest

from services.auth.tokens import SCOPES, scope_includes
from services.rollouts.requests.ownership import CLAIM_FIELDS
from services.spec import ServiceSpec
from tests.support.app_fixture import READY, AppFixture

BY_THE_OPERATOR = {"logging", "eureka", "volumes"}
"""Fields that the operator's rules limit for every token (services/rollouts/requests/admission.py)."""
HOLDS_OTHERS = {"profiles"}
HARMLESS = {
    # of the service's own container
    "image", "command", "entrypoint", "working_dir", "user", "environment", "healthcheck", "resources", "labels", "port",
    "stop_signal", "init", "host_port",
    # of the service's own traffic
    "drain_timeout", "request_timeout", "tunnel_timeout", "upstream_keepalive", "queue_timeout",
    "retry_with_idempotency_key", "advertise", "consumer_cache",
    # of the service's own deployments
    "replicas", "stop_grace_period", "strategy", "max_surge", "max_unavailable", "min_ready_seconds",
    "progress_deadline_seconds", "failure_action", "on_conflict", "revision_history_limit",
}  # fmt: skip
CLAIMS: dict[str, tuple[Any, Any]] = {
    "routes": ([{"path_prefix": "/shop"}], [{"path_prefix": "/shop/pay"}]),
    "volumes": (["data:/var/lib/data"], ["data:/loot"]),
    "networks": (["backend"], ["backend"]),
    "links": (None, ["victim"]),
}
"""For each field: the value that the victim has, and the value that the thief requests."""
BINDINGS: tuple[tuple[str, ...], ...] = ((), ("thief",), ("thief", "victim"))
WAYS = ("deploy", "replace", "dry run", "profile")


def test_every_spec_field_is_classified() -> None:
    assert set(ServiceSpec.model_fields) == HARMLESS | BY_THE_OPERATOR | HOLDS_OTHERS | set(CLAIM_FIELDS)
    assert set(CLAIMS) == set(CLAIM_FIELDS)
    assert not HARMLESS & (BY_THE_OPERATOR | HOLDS_OTHERS | set(CLAIM_FIELDS))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", CLAIM_FIELDS)
def test_claim_is_accepted_by_scope_and_binding(app_fixture: AppFixture, field: str, way: str) -> None:
    theirs, mine = CLAIMS[field]
    app_fixture.engine.networks |= {"backend"}
    assert app_fixture.deploy("victim", port=80, **({field: theirs} if theirs else {})).status_code == 200
    app_fixture.image("thief:1")
    outcomes = {}
    for scope in SCOPES:
        for binding in BINDINGS if scope != "admin" else BINDINGS[:1]:
            token = app_fixture.as_scope(scope, **({"services": list(binding)} if binding else {}))
            outcomes[scope, binding] = ask(app_fixture, token, field, mine, way)
    for (scope, binding), status in outcomes.items():
        expected = 403 if not scope_includes(scope, "write") else 422 if binding == ("thief",) else 200
        assert status == expected, f"{scope} bound to {binding or 'nothing'}: {outcomes}"


def ask(app_fixture: AppFixture, token: dict[str, str], field: str, value: Any, way: str) -> int:
    """Return the status of a dry run that makes the claim, so that no claim persists for the next caller.

    For `way` "deploy", check that a refused claim is refused without a dry run too.
    """
    claim = {"profiles": {"p": {field: value}}} if way == "profile" else {field: value}
    body = {"service": "thief", "image": "thief:1", "port": 80, "healthcheck": READY, **claim}
    body |= {"mode": "replace"} if way == "replace" else {}
    answer = app_fixture.client.post("/deployments?dry_run=true", json=body, headers=token)
    if way == "deploy" and answer.status_code != 200:
        assert app_fixture.client.post("/deployments", json=body, headers=token).status_code == answer.status_code
    return answer.status_code
