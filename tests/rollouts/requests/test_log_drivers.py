"""Log drivers that a spec may name, and the log configuration of its containers."""

from __future__ import annotations

from typing import Any

import pytest

from services.engine.port import LogConfig
from services.rollouts.requests.log_drivers import log_config, log_errors
from services.spec import Logging

PROFILES = {"central": LogConfig("syslog", {"syslog-address": "udp://logs.example:514"})}


def errors(**logging: Any) -> list[tuple[str, str]]:
    return [(each.field, each.message) for each in log_errors(PROFILES, Logging(**logging))]


@pytest.mark.parametrize(
    "logging",
    [
        {},
        {"driver": "json-file", "options": {}},
        {"driver": "json-file", "options": {"max-size": "512k", "max-file": "100", "compress": "true"}},
        {"driver": "local", "options": {"max-size": "1048576", "compress": "false"}},
        {"driver": "local"},
        {"driver": "none"},
        {"driver": "none", "options": {}},
        {"driver": "central"},
    ],
    ids=str,
)
def test_safe_log_drivers_and_profiles_are_accepted(logging: dict[str, Any]) -> None:
    assert errors(**logging) == []


@pytest.mark.parametrize(
    "driver", ["syslog", "splunk", "fluentd", "gelf", "journald", "awslogs", "gcplogs", "logentries", "etwlogs", "loki"]
)
def test_unconfigured_log_driver_is_refused_with_fix(driver: str) -> None:
    [(field, message)] = errors(driver=driver, options={"syslog-address": "unix:///var/lib/sluice/gateway/admin.sock"})
    assert field == "logging.driver"
    assert "json-file, local, none, central" in message and "SLUICE_LOG_DRIVERS" in message


@pytest.mark.parametrize(
    ("logging", "field", "says"),
    [
        ({"driver": "json-file", "options": {"tag": "web"}}, "logging.options.tag", "max-size, max-file, compress"),
        ({"driver": "json-file", "options": {"labels": "a"}}, "logging.options.labels", "max-size, max-file, compress"),
        ({"driver": "json-file", "options": {"env": "a"}}, "logging.options.env", "max-size, max-file, compress"),
        ({"driver": "json-file", "options": {"mode": "non-blocking"}}, "logging.options.mode", "not an allowed option"),
        ({"driver": "json-file", "options": {"max-size": "-1"}}, "logging.options.max-size", "a size"),
        ({"driver": "local", "options": {"max-size": "10 m\n"}}, "logging.options.max-size", "a size"),
        ({"driver": "local", "options": {"max-file": "0"}}, "logging.options.max-file", "from 1 to 100"),
        ({"driver": "local", "options": {"max-file": "101"}}, "logging.options.max-file", "from 1 to 100"),
        ({"driver": "local", "options": {"compress": "yes"}}, "logging.options.compress", '"true" or "false"'),
        ({"driver": "none", "options": {"max-size": "1m"}}, "logging.options.max-size", "takes no options"),
        ({"driver": "central", "options": {"tag": "x"}}, "logging.options", "leave options out"),
        ({"driver": "central", "options": {"syslog-address": "tcp://127.0.0.1:22"}}, "logging.options", "leave options out"),
    ],
)
def test_other_log_options_and_values_are_refused(logging: dict[str, Any], field: str, says: str) -> None:
    [(named, message)] = errors(**logging)
    assert named == field and says in message


@pytest.mark.parametrize(
    ("logging", "made"),
    [
        ({}, LogConfig("json-file", {"max-size": "10m", "max-file": "3"})),
        ({"driver": "local"}, LogConfig("local", {"max-size": "10m", "max-file": "3"})),
        ({"driver": "local", "options": {"compress": "false"}}, LogConfig("local", {"compress": "false"})),
        ({"driver": "none"}, LogConfig("none", {})),
        ({"driver": "central"}, PROFILES["central"]),
    ],
    ids=str,
)
def test_log_driver_inherits_no_options_of_another(logging: dict[str, Any], made: LogConfig) -> None:
    assert log_config(PROFILES, Logging(**logging)) == made
