"""The files of -f: read once, and classified as Compose files or spec files."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.cli.command import CommandContext
from app.cli.errors import usage

DEFAULT_FILE = "sluice.yaml"
_STDIN = "-"
_SERVICES = re.compile(r"""^(?:services|"services"|'services')\s*:""", re.MULTILINE)
_SERVICE = re.compile(r"""^(?:service|"service"|'service')\s*:""", re.MULTILINE)
_FLOW = re.compile(r"\s*\{")
_IN_FLOW = {name: re.compile(rf"""(?<![\w-])["']?{name}["']?\s*:""") for name in ("service", "services")}


@dataclass(frozen=True)
class InputFile:
    """A file of -f with its content; `path` is `-` for stdin."""

    path: str
    text: str

    def __str__(self) -> str:
        return "stdin" if self.path == _STDIN else self.path

    @property
    def directory(self) -> Path:
        """The directory that relative paths in the file are relative to."""
        return Path() if self.path == _STDIN else Path(self.path).parent

    @property
    def is_compose(self) -> bool:
        """Whether the file is a Compose file (`services:`) and not a spec."""
        if _SERVICES.search(self.text) is not None:
            return _SERVICE.search(self.text) is None
        in_flow = {name for name, pattern in _IN_FLOW.items() if pattern.search(self.text)}
        return _FLOW.match(self.text) is not None and in_flow == {"services"}


def input_files(context: CommandContext, service: str | None, paths: Sequence[str] | None) -> list[InputFile]:
    """Return the files of -f; if neither a service nor a file is named, ./sluice.yaml if it exists.

    Several files are Compose files, of which the first has services. Raises CliError.
    """
    if not paths:
        if service is not None or not Path(DEFAULT_FILE).exists():
            return []
        context.out.say(f"Using ./{DEFAULT_FILE}")
        paths = [DEFAULT_FILE]
    if len(paths) > len(set(paths)):
        raise usage(f"-f {next(path for path in paths if paths.count(path) > 1)} is given twice", "Name each file once.")
    files = [InputFile(path, _read(path)) for path in paths]
    spec = next((file for file in files if not file.is_compose and (_SERVICE.search(file.text) or file is files[0])), None)
    if spec is not None and len(files) > 1:
        advice = "Several -f are merged only if they are Compose files; use profiles, or --set, to vary a spec."
        raise usage(f"{spec} is not a Compose file, and -f is given {len(files)} times", advice)
    return files


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == _STDIN else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}", f"`sluice init` writes a {DEFAULT_FILE}.") from error
