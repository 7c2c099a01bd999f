"""Conversion between Docker's documents for containers and images and Sluice's."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.engine.docker.codec import (
    container_config,
    labels_of,
    nanoseconds,
    parse_container,
    parse_error,
    parse_instance,
)
from services.engine.docker.image_codec import parse_image
from services.spec import Healthcheck, VolumeMount
from tests.support.instance_specs import make_instance_spec

SPEC = make_instance_spec("web-r2-3", deployment=7, hash="abc")


def test_labels_and_environment_of_an_instance_are_documented() -> None:
    body = container_config(SPEC, "sluice", "sluice")
    reported = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    names = [*body["Labels"], *(entry.partition("=")[0] for entry in body["Env"])]
    assert len(names) == 11
    assert [name for name in names if f"`{name}`" not in reported] == []


def inspection(**state: Any) -> dict[str, Any]:
    """Return a container as Docker 29 reports it: addresses only inside `Networks`."""
    return {
        "Id": "c1",
        "Name": "/sluice-web-r2-3",
        "RestartCount": 1,
        "Config": {"Labels": labels_of(SPEC, "sluice")},
        "State": {"Status": "running", "StartedAt": "2026-11-24T10:00:00Z", "ExitCode": 0, "OOMKilled": False, **state},
        "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
        "NetworkSettings": {"Networks": {"sluice": {"IPAMConfig": {"IPv4Address": "10.203.0.5"}, "IPAddress": ""}}},
    }


def test_inspection_is_parsed_into_a_view() -> None:
    view = parse_container(inspection(Health={"Status": "healthy"}), "sluice", "sluice")
    assert view is not None
    assert (view.instance, view.service, view.revision, view.deployment, view.slot) == ("web-r2-3", "web", 2, 7, 3)
    assert (view.address, view.health, view.auto_restart, view.restarts) == ("10.203.0.5", "healthy", True, 1)
    assert view.start_id == "c1@2026-11-24T10:00:00Z"


def test_last_run_of_the_health_check_is_parsed_with_its_time_in_the_engines_zone() -> None:
    runs = [
        {"Start": "2026-11-24T11:00:00Z", "End": "2026-11-24T11:00:01Z", "ExitCode": 0, "Output": ""},
        {"Start": "…", "End": "2026-11-24T12:00:01.123456789+01:00", "ExitCode": 3, "Output": "stuck\n" + 999 * "x"},
    ]
    view = parse_container(inspection(Health={"Status": "unhealthy", "Log": runs}), "sluice", "sluice")
    assert view is not None and view.last_test is not None
    assert (view.last_test.exit_code, view.last_test.output[:7], len(view.last_test.output)) == (3, "stuck\nx", 300)
    assert view.last_test.at == datetime(2026, 11, 24, 11, 0, 1, 123456, UTC).timestamp()


@pytest.mark.parametrize(
    ("status", "state"),
    [("created", "created"), ("running", "running"), ("paused", "running"), ("restarting", "running"), ("exited", "exited"),
     ("dead", "exited"), ("removing", "exited"), ("stopping", "exited")],
)  # fmt: skip
def test_docker_states_are_mapped_to_created_running_or_exited(status: str, state: str) -> None:
    view = parse_container(inspection(Status=status, ExitCode=3), "sluice", "sluice")
    assert view is not None and view.state == state
    assert view.exit_code == (3 if state == "exited" else None)


@pytest.mark.parametrize(
    "change",
    [
        {"Config": {"Labels": None}},
        {"Config": {"Labels": labels_of(SPEC, "other")}},
        {"Config": {"Labels": {**labels_of(SPEC, "sluice"), "sluice.slot": "³"}}},
        {"Config": {"Labels": {**labels_of(SPEC, "sluice"), "sluice.revision": "-1"}}},
        {"Config": {"Labels": {**labels_of(SPEC, "sluice"), "sluice.revision": "9" * 40}}},
        {"Config": {"Labels": {**labels_of(SPEC, "sluice"), "sluice.instance": "anything"}}},
        {"Config": {"Labels": {**labels_of(SPEC, "sluice"), "sluice.instance": "api-r2-3"}}},
        {"Config": {"Labels": {key: text for key, text in labels_of(SPEC, "sluice").items() if key != "sluice.hash"}}},
    ],
)
def test_container_with_wrong_labels_is_no_instance(change: dict[str, Any]) -> None:
    assert parse_container({**inspection(), **change}, "sluice", "sluice") is None


def test_container_with_another_name_is_a_renamed_instance() -> None:
    view = parse_container({**inspection(), "Name": "/debug"}, "sluice", "sluice")
    assert view is not None and (view.instance, view.name, view.renamed) == ("web-r2-3", "debug", True)
    own = parse_container(inspection(), "sluice", "sluice")
    assert own is not None and (own.name, own.renamed) == ("sluice-web-r2-3", False)


def test_instance_id_is_read_only_from_labels_with_sluices_name() -> None:
    assert parse_instance({}, "sluice") is None
    assert parse_instance(labels_of(SPEC, "sluice"), "sluice") == "web-r2-3"


def test_user_labels_and_environment_cannot_override_sluices() -> None:
    spec = make_instance_spec("web-r2-3", labels={"sluice.name": "other", "team": "x"})
    assert container_config(spec, "sluice", "sluice")["Labels"]["sluice.name"] == "sluice"
    spec = make_instance_spec("web-r2-3", environment={"SLUICE_INSTANCE": "other"})
    assert "SLUICE_INSTANCE=web-r2-3" in container_config(spec, "sluice", "sluice")["Env"]


def test_image_labels_cannot_override_sluices() -> None:
    image = {"sluice.role": "gateway", "sluice.name": "other", "sluicelike": "1", "team": "x"}
    labels = container_config(SPEC, "sluice", "sluice", image_labels=image)["Labels"]
    assert labels == {**labels_of(SPEC, "sluice"), "sluice.role": ""}


def test_unset_fields_are_left_out_of_the_container_config() -> None:
    body = container_config(SPEC, "sluice", "sluice")
    assert not {"Cmd", "Entrypoint", "WorkingDir", "User", "StopSignal", "Healthcheck"} & set(body)
    assert not {"Memory", "NanoCpus", "PidsLimit", "Privileged"} & set(body["HostConfig"])
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "no"}


def test_volumes_and_health_checks_are_converted_to_docker_units() -> None:
    volumes = (VolumeMount(source="data", target="/data", read_only=True), VolumeMount(type="tmpfs", target="/tmp"))
    check = Healthcheck(test=["CMD", "true"], interval=1.5, timeout=2, retries=4, start_period=10)
    spec = make_instance_spec("web-r2-3", volumes=volumes, healthcheck=check)
    body = container_config(spec, "sluice", "sluice")
    assert body["HostConfig"]["Mounts"] == [
        {
            "Type": "volume",
            "Source": "data",
            "Target": "/data",
            "ReadOnly": True,
            "VolumeOptions": {"Labels": {"sluice.name": "sluice"}},
        },
        {"Type": "tmpfs", "Target": "/tmp", "ReadOnly": False},
    ]
    assert body["Healthcheck"] == {
        "Test": ["CMD", "true"],
        "Interval": 1_500_000_000,
        "Timeout": 2_000_000_000,
        "StartPeriod": 10_000_000_000,
        "Retries": 4,
    }


@pytest.mark.parametrize(
    ("config", "ports", "check"),
    [
        ({}, (), None),
        ({"ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "80": {}}}, (80, 8080), None),
        ({"ExposedPorts": None, "Healthcheck": {"Test": ["NONE"]}}, (), None),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "true"]}}, (), ("CMD-SHELL", "true")),
    ],
)
def test_image_inspection_is_parsed(config: dict[str, Any], ports: tuple[int, ...], check: tuple[str, ...] | None) -> None:
    image = parse_image({"Id": "sha256:1", "Config": config}, "web:1")
    assert (image.exposed_ports, image.healthcheck) == (ports, check)


def test_docker_timestamps_are_parsed_to_the_nanosecond() -> None:
    assert nanoseconds("1970-01-01T00:00:01.000000002Z") == 1_000_000_002
    assert nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert nanoseconds("1970-01-01T00:00:01Z") == 1_000_000_000
    assert nanoseconds("0001-01-01T00:00:00Z") < 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Bind for 0.0.0.0:80 failed: port is already allocated", "port_taken"),
        ("failed to listen: bind: address already in use", "port_taken"),
        ("Address already in use", "no_capacity"),
        ("write /var/lib/docker: no space left on device", "no_capacity"),
        ("unknown log driver", "engine_error"),
    ],
)
def test_refusals_of_the_engine_have_a_reason(text: str, reason: str) -> None:
    assert parse_error(f"{text}\n") == (text, reason)


def test_missing_init_program_is_named_with_its_fix() -> None:
    text = 'exec: "docker-init": executable file not found in $PATH'
    message, reason = parse_error(text)
    assert message == f"`init: true` is not possible: the engine's host has no docker-init; install it there. {text}"
    assert reason == "engine_error"
