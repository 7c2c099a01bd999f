"""The commands of the README and of the quick start, run as they are written, on a real engine and a Sluice of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.docker_cli import ROOT, docker
from tests.support.shell import Shell
from tests.support.shell_blocks import BlockShell, blocks_of

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Provide a function that runs a document's blocks as a new user, and returns their outputs.

    It raises AssertionError if a block exits with another code than the document says.
    """
    user = Shell(tmp_path / "data")
    (tmp_path / "home").mkdir()
    shell = BlockShell(ROOT, tmp_path / "state", {**user.variables, "HOME": str(tmp_path / "home")})

    def follow(document: str) -> list[str]:
        outputs = []
        for block in blocks_of(ROOT / document):
            done = shell.run(block)
            assert done.returncode == block.exit_code, f"{block.commands}\n{done.stdout}\n{done.stderr}"
            outputs.append(done.stdout + done.stderr)
        return outputs

    yield follow
    user.clean()
    if images := docker("image", "ls", "--quiet", "--filter", f"label=sluice.name={user.name}").split():
        docker("rmi", "--force", *images)


def test_readme_deploys_breaks_fixes_and_rolls_back_an_application(follow: Callable[[str], list[str]]) -> None:
    _, _, first, broken, still, fixed, removed = follow("README.md")
    assert "Hello from version 1" in first
    assert "ModuleNotFoundError: No module named 'signals'" in broken
    assert "Hello from version 1" in still
    assert fixed.index("Hello from version 2") < fixed.index("Hello from version 1")
    assert "/ui/sign-in?code=" in removed


@pytest.mark.full
def test_quick_start_commands_succeed_as_written(follow: Callable[[str], list[str]]) -> None:
    assert len(follow("docs/quick-start.md")) > 5
