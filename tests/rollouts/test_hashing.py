"""What replaces instances, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from services.rollouts.hashing import instance_hash
from services.spec import Healthcheck, ServiceSpec


def hash_of(*, image: str = "sha256:1", port: int | None = 8000, check: Healthcheck | None = None, **fields: Any) -> str:
    spec = ServiceSpec.model_validate({"image": "web:1", **fields})
    return instance_hash(image, port, check or Healthcheck(path="/up"), spec)


BEFORE = hash_of()


def test_it_is_sixteen_hexadecimal_digits_and_always_the_same() -> None:
    assert len(BEFORE) == 16 and int(BEFORE, 16) >= 0
    assert hash_of() == BEFORE
    assert hash_of(environment={"A": "1", "B": "2"}) == hash_of(environment={"B": "2", "A": "1"})


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "sha256:2"},
        {"port": 9000},
        {"port": None},
        {"check": Healthcheck(path="/health")},
        {"check": Healthcheck(path="/up", interval=5)},
        {"check": Healthcheck(path="/up").model_copy(update={"any_below_500": True})},
        {"environment": {"A": "1"}},
        {"command": ["serve"]},
        {"entrypoint": ["/bin/serve"]},
        {"working_dir": "/srv"},
        {"user": "1000"},
        {"resources": {"memory": "64m"}},
        {"volumes": ["data:/data"]},
        {"networks": ["backend"]},
        {"labels": {"team": "shop"}},
        {"logging": {"driver": "local"}},
        {"links": ["api"]},
        {"host_port": "auto"},
        {"stop_signal": "SIGINT"},
    ],
    ids=str,
)
def test_what_runs_in_an_instance_changes_it(fields: dict[str, Any]) -> None:
    assert hash_of(**fields) != BEFORE


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 9},
        {"routes": [{"path_prefix": "/shop"}]},
        {"strategy": "recreate"},
        {"max_surge": 1},
        {"max_unavailable": 1},
        {"min_ready_seconds": 5},
        {"progress_deadline_seconds": 60},
        {"failure_action": "pause"},
        {"on_conflict": "queue"},
        {"drain_timeout": 5},
        {"stop_grace_period": 5},
        {"request_timeout": 5},
        {"tunnel_timeout": 5},
        {"queue_timeout": 5},
        {"upstream_keepalive": False},
        {"retry_with_idempotency_key": True},
        {"advertise": "instances"},
        {"consumer_cache": 5},
        {"eureka": {"url": "http://eureka:8761/eureka/"}},
        {"revision_history_limit": 3},
        {"profiles": {"prod": {"environment": {"A": "1"}}}},
    ],
    ids=str,
)
def test_routes_size_and_policy_replace_nothing(fields: dict[str, Any]) -> None:
    assert hash_of(**fields) == BEFORE


def test_every_field_of_the_spec_is_in_one_of_the_two_lists() -> None:
    policy = {
        "image", "port", "healthcheck",  # resolved, and handed over as such
        "replicas", "routes", "strategy", "max_surge", "max_unavailable", "min_ready_seconds", "progress_deadline_seconds",
        "failure_action", "on_conflict", "drain_timeout", "stop_grace_period", "request_timeout", "tunnel_timeout",
        "queue_timeout", "upstream_keepalive", "retry_with_idempotency_key", "revision_history_limit", "profiles",
        "advertise", "consumer_cache", "eureka",
    }  # fmt: skip
    from services.rollouts.hashing import RUNS

    assert set(ServiceSpec.model_fields) == policy | RUNS
    assert not policy & RUNS
