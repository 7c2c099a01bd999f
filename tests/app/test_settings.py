"""Settings from the environment or a file, and the errors of invalid values."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import LONGEST_DATA, PREFIX, Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def test_defaults_bind_the_api_to_loopback() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.gateway_port, settings.maxconn) == ("127.0.0.1", 7080, 8080, 8000)
    assert settings.gateway_image.startswith("sluice-gateway:")
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_environment_accepts_lists_with_commas_and_sizes_with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOST_ROOTS", "/srv/a, /srv/b")
    monkeypatch.setenv("SLUICE_TRUSTED_PROXIES", "10.0.0.1,192.168.0.0/16")
    monkeypatch.setenv("SLUICE_MAX_BODY_SIZE", "10m")
    monkeypatch.setenv("SLUICE_SUBNET", "10.203.4.0/22")
    monkeypatch.setenv("SLUICE_DEFAULT_ROUTE", "")
    settings = load_settings()
    assert settings.host_roots == ["/srv/a", "/srv/b"]
    assert settings.trusted_proxies == ["10.0.0.1/32", "192.168.0.0/16"]
    assert (settings.max_body_size, settings.subnet, settings.default_route) == (10 * 1024**2, "10.203.4.0/22", None)


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("PORT", "abc", "expected: the API's port, 1 to 65535"),
        ("PORT", "0", "must be at least 1"),
        ("GATEWAY_PORT", "70000", "must be at most 65535"),
        ("NAME", "a/b", "lower-case letters"),
        ("HOST", "localhost", "the IP address"),
        ("SUBNET", "10.0.0.1/22", "has host bits set"),
        ("SUBNET", "10.0.0.0/30", "must be a /16 to a /28"),
        ("DEFAULT_ROUTE", "web", "the path prefix"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,nowhere", "'nowhere'"),
        ("HOST_ROOTS", "srv", "must be absolute"),
        ("HOST_ROOTS", "/srv/../etc", 'without ".."'),
        ("EUREKA_SERVERS", "10.0.0.5,ftp://x/", "ftp://x/: must be an http or https URL"),
        ("EUREKA_SERVERS", "http://any:secret@h/", "without credentials"),
        ("LOG_DRIVERS", "{", "must be a JSON object"),
        ("LOG_DRIVERS", "[]", "name → {driver, options}"),
        ("LOG_DRIVERS", '{"syslog": {"driver": "syslog"}}', '"syslog" is a driver of the engine'),
        ("LOG_DRIVERS", '{"A b": {"driver": "syslog"}}', "A b"),
        ("LOG_DRIVERS", '{"central": {}}', "central.driver: is required"),
        ("LOG_DRIVERS", '{"central": {"driver": "a b"}}', "central.driver: "),
        ("LOG_DRIVERS", '{"central": {"driver": "gelf", "options": {"a": 1}}}', "central.options.a: "),
        ("LOG_DRIVERS", '{"central": {"driver": "gelf", "option": {}}}', "central.option: "),
        ("MAXCONN", "5", "100 to 1000000"),
        ("MAX_BODY_SIZE", "big", "such as 100m"),
        ("LOG_FORMAT", "xml", "expected: json or console"),
        ("LOG_LEVEL", "loud", "expected: debug, info, warning or error"),
        ("GATEWAY_LOG_ALL", "maybe", "logs every request"),
        ("DOCKER_HOST", "/var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("PUBLIC_HOST", "a b", "the host under which"),
    ],
)
def test_invalid_value_is_one_line_that_names_the_variable_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reported: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value).startswith(f"SLUICE_{name}=")
    assert reported in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_log_profiles_are_json_in_the_environment_and_a_table_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLUICE_LOG_DRIVERS", '{"central": {"driver": "gelf", "options": {"gelf-address": "udp://a:1"}}}')
    by_environment = load_settings().log_drivers
    monkeypatch.delenv("SLUICE_LOG_DRIVERS")
    (tmp_path / "sluice.toml").write_text('[log_drivers.central]\ndriver = "gelf"\noptions = {gelf-address = "udp://a:1"}\n')
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.toml"))
    assert load_settings().log_drivers == by_environment
    assert by_environment["central"].options == {"gelf-address": "udp://a:1"}


def test_invalid_log_profile_is_reported_without_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "SLUICE_LOG_DRIVERS", '{"central": {"driver": "sp lunk", "options": {"splunk-token": "s3cr3t-t0ken"}}}'
    )
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "s3cr3t" not in str(refused.value)


def test_data_directory_with_a_path_too_long_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = f"/{'d' * (LONGEST_DATA - 1)}"
    monkeypatch.setenv("SLUICE_DATA", longest)
    data = load_settings().data
    with socket.socket(socket.AF_UNIX) as there, pytest.raises(FileNotFoundError):  # not the error "AF_UNIX path too long"
        there.connect(str(data / "gateway" / "leaving-0123456789ab.sock"))
    monkeypatch.setenv("SLUICE_DATA", f"{longest}d")
    with pytest.raises(SettingsError, match=rf"^SLUICE_DATA=/d+: its path has {LONGEST_DATA + 1} bytes.*; use a directory"):
        load_settings()
    assert f"at most {LONGEST_DATA} bytes" in (ROOT / "docs" / "settings.md").read_text()


def test_invalid_values_are_all_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_PORT", "x")
    monkeypatch.setenv("SLUICE_LOG_FORMAT", "x")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["sluice.toml", "sluice.env"])
def test_configuration_file_sets_values_that_the_environment_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    toml = 'port = 7999\nname = "other"\nhost_roots = ["/srv"]\n'
    file.write_text(
        toml if name.endswith("toml") else "# ours\nSLUICE_PORT=7999\nSLUICE_NAME=other\nSLUICE_HOST_ROOTS=/srv\n"
    )
    monkeypatch.setenv("SLUICE_CONFIG", str(file))
    monkeypatch.setenv("SLUICE_NAME", "mine")
    settings = load_settings()
    assert (settings.port, settings.name, settings.host_roots) == (7999, "mine", ["/srv"])
    file.write_text("prot = 1\n" if name.endswith("toml") else "SLUICE_PROT=1\n")
    with pytest.raises(SettingsError, match=r"SLUICE_PROT: unknown setting; known: .*SLUICE_PORT"):
        load_settings()


def test_unreadable_configuration_file_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(SettingsError, match=r"SLUICE_CONFIG=.*No such file"):
        load_settings()
    (tmp_path / "bad.toml").write_text("= =")
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "bad.toml"))
    with pytest.raises(SettingsError, match=r"SLUICE_CONFIG=.*use a TOML file"):
        load_settings()


def test_settings_are_all_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `SLUICE_{name.upper()}` |")), None)
        assert row is not None, f"docs/settings.md says nothing of SLUICE_{name.upper()}"
        assert field.description
        assert field.description.split(":")[0][:40] in row, f"docs/settings.md says something else of {name}"
