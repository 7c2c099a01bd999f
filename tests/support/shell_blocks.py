"""Shell blocks of a document, run one after another as a reader would run them."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"(?:^<!-- exits with (\d+) -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """The commands of one fenced block, and the exit code that the document promises."""

    commands: str
    exit_code: int = 0


def blocks_of(document: Path) -> list[Block]:
    """Return the document's ```sh blocks. A comment `<!-- exits with N -->` before a block gives its exit code."""
    return [Block(found[2], int(found[1] or 0)) for found in _BLOCK.finditer(document.read_text("utf-8"))]


@dataclass
class BlockShell:
    """A bash that keeps its working directory and exported variables from one block to the next."""

    directory: Path
    """Where the first block starts."""
    state: Path
    """A file for what is kept."""
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, block: Block, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run the block; its first command that fails ends it."""
        state = shlex.quote(str(self.state))
        keep = f'{{ export -p; echo cd "$(printf %q "$PWD")"; }} >{state}'
        script = f"trap {shlex.quote(keep)} EXIT\n[ ! -e {state} ] || . {state}\nset -e\n{block.commands}"
        return subprocess.run(
            ["bash", "-c", script], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
