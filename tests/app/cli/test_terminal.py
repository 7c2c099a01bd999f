"""Output on a terminal: one line per instance, updated in place, with important messages above the lines."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from tests.support.api_stub import TOKEN, Stub

COMMAND = [sys.executable, "-c", "from app.cli import main; main()", "deploy", "web", "--image", "web:1.5"]


@pytest.mark.parametrize(("outcome", "code"), [("succeeded", 0), ("rolled_back", 1)])
def test_terminal_shows_every_instance_and_the_result(stub: Stub, home: Path, outcome: str, code: int) -> None:
    stub.outcome = outcome
    screen, exit_code = on_terminal(stub)
    assert exit_code == code
    assert "\x1b[?25h" in screen[screen.rindex("\x1b[?25l") :], "the cursor is given back"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    for instance in ("web-r4-1", "web-r4-2", "web-r3-1"):
        assert instance in text
    if outcome == "succeeded":
        assert re.search(r"● web-r4-1 +serving +1 request in flight", text)
        assert text.rstrip().endswith("http://127.0.0.1:8080/web")
    else:
        assert re.search(r"✗ web-r4-1 +failed +exit code 1", text)
        assert text.index("| KeyError: 'DATABASE_URL'") < text.index("✗ web-r4-1")


def on_terminal(stub: Stub) -> tuple[str, int]:
    """Run the command on a terminal of 100 columns; return its output and the exit code."""
    reported = {"SLUICE_URL": stub.url, "SLUICE_TOKEN": TOKEN, "PYTHONPATH": str(Path(__file__).parents[3])}
    environment = {**os.environ, **reported, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    # posix_spawn forks and execs at once; pty.fork would copy the locks of this process's threads into the child
    master, slave = pty.openpty()
    actions = [(os.POSIX_SPAWN_DUP2, slave, number) for number in (0, 1, 2)]
    child = os.posix_spawn(COMMAND[0], COMMAND, environment, file_actions=actions)
    os.close(slave)
    seen = b""
    while True:
        try:
            some = os.read(master, 65536)
        except OSError:  # Linux reports a closed terminal as an error
            break
        if not some:
            break
        seen += some
    os.close(master)
    return seen.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
