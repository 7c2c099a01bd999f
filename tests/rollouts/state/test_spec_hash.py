"""Changes of a spec that replace instances, and those that do not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from services.rollouts.state import spec_hash
from services.rollouts.state.spec_hash import ALWAYS, instance_hash
from services.spec import ContainerFields, Healthcheck, Resources, ServiceSpec, VolumeMount


def hash_of(*, image: str = "sha256:1", port: int | None = 8000, check: Healthcheck | None = None, **fields: Any) -> str:
    spec = ServiceSpec.model_validate({"image": "web:1", **fields})
    return instance_hash(image, port, check or Healthcheck(path="/up"), spec)


BEFORE = hash_of()
EVERYTHING: dict[str, Any] = {
    "environment": {"A": "1"},
    "command": ["serve"],
    "entrypoint": ["/bin/serve"],
    "working_dir": "/srv",
    "user": "1000",
    "resources": {"cpus": 0.5, "memory": "64m", "pids": 10},
    "volumes": ["data:/data", {"type": "tmpfs", "target": "/tmp"}],
    "networks": ["backend"],
    "labels": {"team": "shop"},
    "logging": {"driver": "local", "options": {}},
    "links": ["api"],
    "host_port": {"auto": True, "exclude": [8080]},
    "stop_signal": "SIGINT",
}
"""The fields that are hashed even at their defaults, each with a value that is not its default."""
CHECK = Healthcheck(path="/up", port=81, headers={"Host": "web"}, expect_json={"status": "UP"}, interval=5)


class NewerFields(ContainerFields):
    """Container fields with one more field, as a later version of Sluice may have it."""

    newer: bool = False


class NewerResources(Resources):
    shm_size: int | None = None


class NewerVolume(VolumeMount):
    options: list[str] = Field(default_factory=list)


def test_hashes_equal_those_of_running_containers() -> None:
    """A different hash replaces every instance at the first deployment after an upgrade of Sluice."""
    assert BEFORE == "9eef6fc7fb739468"
    assert hash_of(check=CHECK, **EVERYTHING) == "c0a456323764fb22"


@pytest.mark.parametrize(
    ("fields", "before"),
    [
        ({"environment": {"A": "1", "B": "two words", "DEBUG": "false"}}, "47340c5adca02a8f"),
        ({"command": ["serve", "--port", "8000"], "entrypoint": ["/bin/sh", "-c"]}, "bde2ca29d1a1f092"),
        ({"command": []}, "b6fcd6897f30b86f"),
        ({"working_dir": "/srv/app", "user": "1000:1000", "stop_signal": "SIGQUIT"}, "ea4f98dd4db7715d"),
        ({"resources": {"cpus": 0.25}}, "e40f29b22e0b322e"),
        ({"resources": {"cpus": 2, "memory": "1.5g", "pids": 512}}, "81649900d61d1513"),
        ({"resources": {}}, "cbd4ebd095bd9116"),
        ({"volumes": ["data:/data", "/srv/static:/static:ro", {"type": "tmpfs", "target": "/tmp"}]}, "97545656516002a7"),
        (
            {"volumes": [{"source": "shared", "target": "/shared", "shared": True}], "networks": ["backend", "metrics"]},
            "45a71be8593423b9",
        ),
        ({"labels": {"team": "shop", "com.example/tier": "1"}, "links": ["api", "db"]}, "6830aa12491c4586"),
        ({"host_port": "auto"}, "2b05e62a1875e503"),
        (
            {"host_port": {"auto": True, "exclude": [8080, 9090]}, "eureka": {"url": "http://eureka:8761/eureka/"}},
            "d05858cc750e7e21",
        ),
        ({"logging": {"driver": "json-file", "options": {"max-size": "5m", "compress": "true"}}}, "844e1fe2310e82ed"),
        ({"port": None, "check": Healthcheck(tcp=True)}, "2330aa2b26634e75"),
        ({"port": None, "check": Healthcheck(disable=True)}, "a7bab64928f01b6b"),
        ({"port": None, "check": Healthcheck(test=["CMD", "true"], interval=0.5)}, "e7cc9918199ad2c3"),
        ({"port": None, "check": Healthcheck().model_copy(update={"any_below_500": True})}, "cde34869e0ac29e4"),
    ],
    ids=str,
)
def test_hashes_of_varied_specs_equal_those_of_running_containers(fields: dict[str, Any], before: str) -> None:
    assert hash_of(**fields) == before


@pytest.mark.parametrize(
    ("logging", "before"),
    [
        ({"driver": "none"}, "4a90b499a81ea294"),
        ({"driver": "none", "options": {}}, "19ca1b9dd1c7a548"),
        ({"driver": "local"}, "28856ed1eab972a5"),
        ({"options": {"max-size": "5m"}}, "99f8fe435dd8f8fe"),
    ],
    ids=str,
)
def test_hashes_of_log_drivers_equal_those_of_running_containers(logging: dict[str, Any], before: str) -> None:
    assert hash_of(logging=logging) == before


def test_new_spec_field_changes_hash_only_when_not_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spec_hash, "ContainerFields", NewerFields)

    def newer(**fields: Any) -> str:
        return instance_hash("sha256:1", 8000, CHECK, NewerFields.model_validate({**EVERYTHING, **fields}))

    before = hash_of(check=CHECK, **EVERYTHING)
    assert newer() == newer(newer=False) == before
    assert newer(newer=True) != before


def test_new_nested_field_changes_hash_only_when_not_default() -> None:
    spec = ServiceSpec.model_validate({"image": "web:1", **EVERYTHING})
    assert spec.resources is not None
    memory = spec.resources.model_dump()

    def newer(resources: dict[str, Any], options: list[str]) -> str:
        volumes = [NewerVolume(**volume.model_dump(), options=options) for volume in spec.volumes]
        later = spec.model_copy(update={"resources": NewerResources(**memory, **resources), "volumes": volumes})
        return instance_hash("sha256:1", 8000, CHECK, later)

    before = instance_hash("sha256:1", 8000, CHECK, spec)
    assert newer({}, []) == before
    assert len({before, newer({"shm_size": 1}, []), newer({}, ["noexec"])}) == 3


def test_always_hashed_fields_exist_in_their_models() -> None:
    for part, names in ALWAYS.items():
        assert names <= set(part.model_fields), part


def test_hash_is_sixteen_hexadecimal_digits_and_deterministic() -> None:
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
    ],
    ids=str,
)
def test_image_port_and_health_check_change_hash(fields: dict[str, Any]) -> None:
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
def test_routes_replicas_and_policy_do_not_change_hash(fields: dict[str, Any]) -> None:
    assert hash_of(**fields) == BEFORE


def test_every_spec_field_is_either_hashed_or_policy() -> None:
    policy = {
        "image", "port", "healthcheck",  # passed separately, after they are resolved
        "replicas", "routes", "strategy", "max_surge", "max_unavailable", "min_ready_seconds", "progress_deadline_seconds",
        "failure_action", "on_conflict", "drain_timeout", "stop_grace_period", "request_timeout", "tunnel_timeout",
        "queue_timeout", "upstream_keepalive", "retry_with_idempotency_key", "revision_history_limit", "profiles",
        "advertise", "consumer_cache", "eureka",
    }  # fmt: skip
    container = set(ContainerFields.model_fields)
    assert set(ServiceSpec.model_fields) == policy | container
    assert not policy & container
