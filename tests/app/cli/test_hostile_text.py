"""The CLI prints no terminal control but its own colours, whatever instances, images and other users write."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.cli import terminal
from app.cli.client.events import Event
from app.cli.errors import CliError
from app.cli.output.console import Format, Output, coloured, columns, pairs
from app.cli.output.messages import format_event
from app.cli.terminal import echo_json, rendered, styled
from app.log_config import configure
from app.settings import Settings
from services.builds.log import LogBuffer
from services.printable import strip_control_characters
from tests.app.cli.conftest import Sluice
from tests.app.cli.test_terminal import on_terminal
from tests.support.api_stub import Stub
from tests.support.cli_scripts import Step, instance, script

HOSTILE = (
    "a\x1b]52;c;cm0gLXJmIC8=\x07b\x1b[2J\x9b31m\x9d0;title\x9cc\x1b[31mred\x1b[8m\u202egnp\u2066\x08\x07\x7f\r\x00\x1bcd"
    "\x1bP1q\x1b\\e"
)
SHOWN = "abcredgnpde"
OURS = re.compile(r"\x1b\[(0|1|3[1-6]|9[236]|1;31|31;1)m")


def harmful(text: str) -> list[str]:
    """Return the characters that are neither printable, nor line ends, nor part of the CLI's own colours."""
    return [character for character in OURS.sub("", text) if not (character.isprintable() or character in "\n\t")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("a\tb\nc", "a\tb\nc"),
        ("日本\u3000語 é \u00a0x", "日本 語 é  x"),
        ("\x1b]0;never ended\nnext line", "\nnext line"),
        ("\x1b[" + "0" * 100_000, "0" * 100_000),
        ("\x1b" * 100_000, ""),
        ("\ud800", ""),
    ],
)
def test_clean_removes_controls_and_no_words(text: str, shown: str) -> None:
    assert strip_control_characters(text) == shown


def test_styled_text_of_others_is_not_rendered() -> None:
    forged = styled("x", "red").replace(terminal._MARK, "\x1b0123456789abcdef:")
    text = f"{styled(HOSTILE, 'red', 'bold')} {HOSTILE} {forged}"
    assert rendered(text, colours=True) == f"\x1b[31;1m{SHOWN}\x1b[0m {SHOWN} 123456789abcdef:31mx123456789abcdef:0m"
    assert rendered(text, colours=False).startswith(f"{SHOWN} {SHOWN}")


def test_output_of_every_kind_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.result({}, HOSTILE)
    out.result({}, columns(("A", "B"), [(HOSTILE, "serving")]))
    out.result({}, pairs([("note", HOSTILE)]))
    out.line({}, HOSTILE)
    out.say(HOSTILE)
    out.say(HOSTILE, "yellow")
    out.error(CliError(HOSTILE, HOSTILE))
    said = capsys.readouterr()
    assert harmful(said.out) == harmful(said.err) == []
    assert said.out.count(SHOWN) == 4
    assert said.err.count(SHOWN) == 4


def test_json_output_escapes_control_characters_and_loses_none(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"text": HOSTILE})
    Output(Format.JSON).line({"text": HOSTILE}, "")
    Output(Format.JSON).error(CliError("", document={"text": HOSTILE}))
    said = capsys.readouterr().out
    assert all(" " <= character < "\x7f" or character == "\n" for character in said)
    first, second, *_ = said.splitlines()
    assert json.loads(first) == json.loads(second) == {"text": HOSTILE}


@pytest.mark.parametrize("verb", [("logs", "web"), ("logs", "web-r3-1"), ("history",), ("ps",), ("status", "17")])
def test_verbs_print_no_foreign_control_character(stub: Stub, sluice: Sluice, verb: tuple[str, ...]) -> None:
    hostile(stub)
    result = sluice(*verb)
    assert harmful(result.output) == []
    lines = [json.loads(line) for line in sluice("logs", "web-r3-1", "--json").stdout.splitlines()]
    assert {"instance": "web-r3-1", "line": HOSTILE.replace("\r", "")} in lines
    if verb[0] == "logs":
        assert SHOWN in result.stdout


def test_followed_deployment_prints_no_foreign_control_character_on_a_terminal(
    stub: Stub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.outcome = "rolled_back"
    monkeypatch.setattr("tests.support.api_stub.script", hostile_script)
    screen, _ = on_terminal(stub)
    text = re.sub(r"\x1b\[(\?25[lh]|2K|1A|[0-9;]*m)|\r", "", screen)
    assert SHOWN in text
    assert harmful(text) == []
    assert "\x1b[8m" not in screen


def test_no_foreign_line_looks_like_line_of_cli() -> None:
    facts = pairs([("note", "x\nstatus  succeeded"), ("status", "failed")])
    assert [line for line in facts.split("\n") if line.startswith("status")] == [f"status  {coloured('failed', 'failed')}"]
    event = Event(1, "instance_failed", "unhealthy: x\n  1.0 s  succeeded", instance="web-r3-1")
    assert (format_event(event, {}) or "").split("\n")[1].startswith("         ")


def test_build_log_is_stored_without_control_characters() -> None:
    log = LogBuffer()
    log.write(f"Step 1/2: {HOSTILE} 50%\r100%")
    assert str(log) == "Step 1/2: abcredgnp de 50% 100%\n"


def hostile_script(outcome: str, deployment: dict[str, Any]) -> list[Step]:
    """Return the script with hostile text in every event, message and log."""
    steps = script(outcome, deployment)
    for step in steps:
        if step.type.startswith("instance_"):
            step.about_instance |= {"log_tail": f"{HOSTILE}\n", "last_probe": {"ok": False, "error": HOSTILE}}
        step.deployment["message"] = HOSTILE
    return [replace(step, message=f"{step.message} {HOSTILE}") for step in steps]


def hostile(stub: Stub) -> None:
    """Add a service, an instance and a failed deployment with hostile text in every foreign field."""
    stub.logs = {"web-r3-1": [HOSTILE.replace("\r", "")]}
    document = stub.new_deployment("web", "deploy", {"note": HOSTILE, "image": f"web:{HOSTILE}"})
    failed = instance("web-r3-1", "web", 3, "failed", log_tail=HOSTILE, last_probe={"ok": False, "error": HOSTILE})
    document |= {"message": HOSTILE, "reason": HOSTILE, "instances": [failed], "status": "failed"}
    stub.instances["web-r3-1"] = {**failed, "status": "serving"}


def test_console_log_has_neither_control_characters_nor_forged_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stderr = StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stderr)
        configure(Settings(data=tmp_path, log_level="info", log_format="console"))
        structlog.get_logger("x").warning(HOSTILE, detail=f"{HOSTILE}\n2026-11-30 forged")
        logging.getLogger("y").warning("by %s", HOSTILE)
    configure(Settings(data=tmp_path, log_level="warning"))
    assert harmful(stderr.getvalue()) == []
    assert stderr.getvalue().count(SHOWN[:3]) == 3
    assert len(stderr.getvalue().splitlines()) == 2
