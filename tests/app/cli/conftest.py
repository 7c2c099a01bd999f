"""A stub of Sluice's API, and the `sluice` command called in this process with its URL and token set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from tests.support.api_stub import TOKEN, Stub, running_stub
from tests.support.cli_fixture import CliFixture, living

Sluice = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as stub:
        yield stub


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty home and working directory, and remove every SLUICE_ variable from the environment."""
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def sluice(stub: Stub, home: Path) -> Sluice:
    """Provide the command as a function: `sluice("deploy", "web", ...)` returns exit_code, stdout and stderr."""
    environment = {"SLUICE_URL": stub.url, "SLUICE_TOKEN": TOKEN}

    def call(*arguments: str, env: dict[str, str | None] | None = None, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin, env={**environment, **(env or {})}, catch_exceptions=False)

    return call


@pytest.fixture
def cli_fixture(tmp_path: Path, home: Path) -> Iterator[CliFixture]:
    """Provide the real Sluice instead of the stub."""
    with living(CliFixture(tmp_path / "data")) as cli_fixture:
        yield cli_fixture
