"""Dockerfile parsing as in the engine's classic builder, and refusal of remote ADD sources (pure).

The classic builder fetches a remote source of ADD in the engine's own network, which includes the host's loopback.
The check is stricter than any engine's parser: each line of a continued instruction may begin one (engines differ in
here-documents), quotes and escapes are ignored, and a variable may have any value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DOCKERFILE_BYTES = 1024 * 1024
"""Maximum bytes of a Dockerfile."""
REMOTE = ("http://", "https://", "ftp://", "git://", "ssh://", "git@")
_REMOTE_ADD_FIX = "use RUN curl, which uses SLUICE_BUILD_NETWORK, or COPY a file of the context"
_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*(.*?)\s*", re.IGNORECASE)
_ADD = re.compile(r"\s*(?:onbuild\s+)?add\s", re.IGNORECASE)
_SCHEME = re.compile(r"\w://|^\W*git@", re.IGNORECASE)
_UNUSUAL_START = re.compile(r"^[^\w./*?~+-]+")
"""Characters that no ordinary path begins with.

An engine may drop some of them, as it does with a byte order mark.
"""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_JSON_ESCAPE = re.compile(r"\\u[0-9a-f]{4}", re.IGNORECASE)
_QUOTES = str.maketrans(dict.fromkeys("\"'\\`\ufeff", ""))
_JSON = str.maketrans({**dict.fromkeys("[],\"'", " "), **dict.fromkeys("\\`\ufeff", "")})


class DockerfileError(Exception):
    """A Dockerfile that is refused, with the line (counted from 1) and the reason."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True)
class Instruction:
    """An instruction with its continued lines in one `text`, without comments.

    `starts`: (line number, offset in the text) of each line.
    """

    text: str
    starts: tuple[tuple[int, int], ...]

    @property
    def first(self) -> int:
        return self.starts[0][0]

    @property
    def last(self) -> int:
        return self.starts[-1][0]


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile.

    Raises DockerfileError for control characters and for an `escape` directive that engines read differently.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    escape = _escape_of(lines)
    pieces: list[str] = []
    starts: list[tuple[int, int]] = []
    size = 0
    for number, line in enumerate(lines, 1):
        if _CONTROL.search(line):
            raise DockerfileError(number, "has a control character; remove it")
        retained = line.rstrip()
        if not retained or retained.lstrip().startswith("#"):
            continue
        continued = retained.endswith(escape)
        piece = retained[:-1] if continued else retained
        if piece.strip():
            starts.append((number, size))
            pieces.append(piece)
            size += len(piece)
        if not continued:
            if starts:
                yield Instruction("".join(pieces), tuple(starts))
            pieces, starts, size = [], [], 0
    if starts:
        yield Instruction("".join(pieces), tuple(starts))


def check_adds(text: str) -> None:
    """Raise DockerfileError for an ADD or ONBUILD ADD with a source that is remote or may be."""
    for instruction in instructions(text):
        for line, offset in instruction.starts:
            if found := _ADD.match(instruction.text, offset):
                _check_sources(instruction.text[found.end() :], line)
                break  # the sources of an ADD that begins on a later line are among those of this one


def _escape_of(lines: list[str]) -> str:
    """Return the escape character.

    All engines read the directive on the first line; they differ on later lines.
    """
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if found := _ESCAPE.fullmatch(line):
            if number > 1 or found[1] not in ("\\", "`"):
                raise DockerfileError(number, "the directive escape must be on line 1 and name \\ or `; move or remove it")
            return str(found[1])
    return "\\"


def _check_sources(arguments: str, line: int) -> None:
    """Raise DockerfileError if a source is remote or may be.

    `arguments`: the flags, the sources and the destination. Flags are treated like local sources.
    """
    spellings = [arguments.translate(_QUOTES).split()]
    if "[" in arguments:  # may be a JSON array
        if _JSON_ESCAPE.search(arguments):
            raise DockerfileError(line, "ADD has a JSON escape \\u; write the character itself")
        spellings.append(arguments.translate(_JSON).split())
    for words in spellings:
        for word in words:
            if _SCHEME.search(word):
                raise DockerfileError(line, f"ADD of a remote source {word[:200]}; {_REMOTE_ADD_FIX}")
        for word in words[:-1]:
            prefix, variable, _ = word.partition("$")
            if variable and any(scheme.startswith(_UNUSUAL_START.sub("", prefix).lower()) for scheme in REMOTE):
                fix = f"write ./{word[:200]} for a file of the context"
                raise DockerfileError(
                    line, f"ADD of {word[:200]}, a variable that may hold a URL; {fix}, or {_REMOTE_ADD_FIX}"
                )
