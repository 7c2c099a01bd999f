"""`sluice ps --watch` refreshes after every event; tables fit their terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.commands.watch import _redraw
from app.cli.output.console import columns
from app.cli.terminal import rendered
from tests.support.cli_fixture import DEPLOY, CliFixture

IMAGE = "registry.example.org/team/shop-frontend:3f2a9c1"


def test_ps_watch_shows_changes_until_ctrl_c(cli_fixture: CliFixture) -> None:
    command = [sys.executable, "-c", "from app.cli import main; main()", "ps", "--watch", "--json"]
    environment = {**os.environ, **cli_fixture.environment, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"services": [], "instances": []}
        cli_fixture.sluice(*DEPLOY)
        while serving(json.loads(process.stdout.readline())) != ["web-r1-1", "web-r1-2"]:
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "")


def serving(document: dict[str, Any]) -> list[str]:
    return [instance["id"] for instance in document["instances"] if instance["status"] == "serving"]


def test_redraw_overwrites_the_previous_screen_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback=(80, 24): os.terminal_size((80, 3)))
    _redraw("one\ntwo\nthree")
    assert capsys.readouterr().out == "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J"


def test_table_fits_into_80_columns_and_keeps_the_ends_of_its_longest_cells() -> None:
    row = ("shop-frontend", "serving", "3/3", 14, IMAGE, "http://shop.example.org:8080/frontend")
    table = rendered(columns(("SERVICE", "STATUS", "SERVING", "REV", "IMAGE", "URL"), [row], 80), colours=False)
    assert max(map(len, table.splitlines())) <= 80
    assert "shop-frontend  serving" in table and ":3f2a9c1" in table and "…" in table


def test_table_on_a_narrow_terminal_drops_the_last_columns_and_keeps_names_complete() -> None:
    rows = [(17, "web", "rolled_back", IMAGE, "ci", "a note"), (18, "web", "rollback_failed", IMAGE, "ci", "another")]
    table = rendered(columns(("ID", "SERVICE", "STATUS", "IMAGE", "BY", "NOTE"), rows, 43), colours=False)
    assert table.splitlines()[0].split() == ["ID", "SERVICE", "STATUS", "IMAGE"]
    assert "rollback_failed" in table and max(map(len, table.splitlines())) == 43
    name = "a-service-with-a-rather-long-name"
    assert name in columns(("SERVICE", "IMAGE"), [(name, IMAGE)], 40)


def test_table_without_a_terminal_is_not_shortened() -> None:
    assert IMAGE in columns(("SERVICE", "IMAGE"), [("x" * 80, IMAGE)])


def test_table_omits_empty_columns() -> None:
    assert columns(("A", "B", "C"), [("1", None, "2"), ("3", "", None)]) == "A  C\n1  2\n3  -"
