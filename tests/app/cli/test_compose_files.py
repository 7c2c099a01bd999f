"""Several Compose files, Compose files from stdin, and env_files in both formats, against Sluice with a fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_fixture import CliFixture

BASE = """\
name: shop
services:
  web:
    image: web:1
    ports: ["8080:80"]
    environment: {DATABASE_URL: "postgres://db/shop", LOG_LEVEL: info}
    healthcheck: {disable: true}
"""
PROD = """\
# of production
services:
  web:
    image: web:2
    environment: {LOG_LEVEL: warning}
"""
CONFIG = """\
name: shop
services:
  web:
    command: null
    depends_on:
      api:
        condition: service_started
        required: true
    deploy:
      resources:
        limits:
          cpus: 0.5
          memory: "268435456"
      placement: {}
    entrypoint: null
    environment:
      PRICE: 5 $$
      UNSET: null
    healthcheck:
      disable: true
    image: web:1
    networks:
      default: null
    ports:
      - mode: ingress
        target: 80
        published: "8080"
        protocol: tcp
    stop_grace_period: 1m30s
    x-sluice:
      replicas: 2
  api:
    expose:
      - "8000"
    image: web:2
    healthcheck:
      disable: true
    networks:
      default: null
networks:
  default:
    name: shop_default
    ipam: {}
"""
"""A file in the form that `docker compose config` prints."""


@pytest.fixture
def shop(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "UNSET"):
        monkeypatch.delenv(name, raising=False)
    (home / "work" / "compose.yaml").write_text(BASE)
    (home / "work" / "compose.prod.yaml").write_text(PROD)
    return home / "work"


def spec(cli_fixture: CliFixture, service: str) -> dict[str, Any]:
    return dict(json.loads(cli_fixture.sluice("status", service, "--json").stdout)["spec"])


def test_second_compose_file_overrides_the_first_and_drops_nothing_of_it(cli_fixture: CliFixture, shop: Path) -> None:
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml", "-f", "compose.prod.yaml")
    assert result.exit_code == 0, result.output
    made = spec(cli_fixture, "web")
    assert made["image"] == "web:2"
    assert made["environment"] == {"DATABASE_URL": "postgres://db/shop", "LOG_LEVEL": "warning"}
    assert (made["port"], made["healthcheck"]) == (80, {"disable": True})


def test_refusal_of_merged_files_names_file_and_line(cli_fixture: CliFixture, shop: Path) -> None:
    (shop / "compose.prod.yaml").write_text(PROD + "    privileged: true\n    x-sluice: {drain_timeout: soon}\n")
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml", "-f", "compose.prod.yaml")
    assert result.exit_code == 2
    assert "  services.web.privileged: compose.prod.yaml, line 6: is not supported" in result.stderr
    (shop / "compose.prod.yaml").write_text(PROD + "    x-sluice: {drain_timeout: soon}\n")
    refused = cli_fixture.sluice("diff", "-f", "compose.yaml", "-f", "compose.prod.yaml")
    assert "  services.web.x-sluice.drain_timeout: compose.prod.yaml, line 6: must be" in refused.stderr


def test_warning_of_merged_files_names_file_and_line(cli_fixture: CliFixture, shop: Path) -> None:
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml", "-f", "compose.prod.yaml")
    assert "warning: services.web.ports.0 (compose.yaml, line 5) port 8080 is not published" in result.stderr


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("compose.yaml", "broken.yaml"), "broken.yaml, line 2: is not YAML"),
        (("compose.yaml", "other.yaml"), "other.yaml, line 3: is a list, but a mapping in compose.yaml, line 3"),
        (("compose.yaml", "compose.yaml"), "-f compose.yaml is given twice"),
        (("compose.yaml", "sluice.yaml"), "sluice.yaml is not a Compose file, and -f is given 2 times"),
        (("sluice.yaml", "compose.yaml"), "sluice.yaml is not a Compose file"),
        (("sluice.yaml", "second.yaml"), "sluice.yaml is not a Compose file"),
        (("compose.yaml", "missing.yaml"), "missing.yaml cannot be read"),
    ],
)
def test_files_that_cannot_be_merged_are_refused(
    stub: Stub, sluice: Sluice, shop: Path, files: tuple[str, ...], words: str
) -> None:
    (shop / "broken.yaml").write_text("services:\n\t- a\n")
    (shop / "other.yaml").write_text("\nservices:\n  web: [x]\n")
    for name in ("sluice.yaml", "second.yaml"):
        (shop / name).write_text("service: web\nimage: web:1\n")
    result = sluice("deploy", *(word for file in files for word in ("-f", file)))
    assert (result.exit_code, stub.requests) == (2, [])
    assert words in result.stderr


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_output_of_compose_config_deploys_from_stdin(cli_fixture: CliFixture, shop: Path, form: str) -> None:
    from services.compose.document import parse
    from tests.compose.test_merge import plain

    text = CONFIG if form == "yaml" else json.dumps(plain(parse(CONFIG.replace("$$", "$$$$"), {})))
    result = cli_fixture.sluice("deploy", "-f", "-", stdin=text)
    assert result.exit_code == 0, result.output
    made = spec(cli_fixture, "web")
    assert made["environment"] == {"PRICE": "5 $"}
    assert (made["port"], made["links"], made["stop_grace_period"]) == (80, ["api"], 90)
    assert made["labels"] == {"compose.project": "shop"}
    assert "ipam" not in result.stderr


def test_env_file_in_raw_format_is_taken_literally(cli_fixture: CliFixture, shop: Path) -> None:
    env_files = "    env_file: [{path: app.env, format: raw}, {path: more.env}]\n"
    (shop / "compose.yaml").write_text(BASE + env_files)
    raw = 'QUOTED="keep quotes"\r\nJSON={"a": "b # c"}\n\n # a comment\n  A=$B ${C} \nEMPTY=\nUNSET\n'
    (shop / "app.env").write_bytes(raw.encode())
    (shop / "more.env").write_text('MORE="no quotes" # a comment\n')
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml")
    assert result.exit_code == 0, result.output
    environment = spec(cli_fixture, "web")["environment"]
    assert {name: environment[name] for name in environment if name not in ("DATABASE_URL", "LOG_LEVEL")} == {
        "QUOTED": '"keep quotes"', "JSON": '{"a": "b # c"}', "A": "$B ${C} ", "EMPTY": "", "MORE": "no quotes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("env_files", "raw", "words"),
    [
        ("[{path: app.env, format: dotenv}]", "A=1", "services.web.env_file.0.format: line 8: must be raw"),
        ("[{path: app.env, format: raw}]", "A=1\nA B=hunter2", "app.env, line 2: not NAME=value"),
        ("[{path: app.env, format: raw}, app.env]", "A=1", "app.env has format: raw in one place and not in another"),
    ],
)
def test_invalid_raw_env_file_is_refused(cli_fixture: CliFixture, shop: Path, env_files: str, raw: str, words: str) -> None:
    (shop / "compose.yaml").write_text(f"{BASE}    env_file: {env_files}\n")
    (shop / "app.env").write_text(raw)
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "hunter2" not in result.output
