"""Pure: the instructions of a Dockerfile as the engine's classic builder reads them, and no ADD of a remote source.

The classic builder fetches a remote source of ADD in the engine's own network, where the host's loopback is. The check is
wider than any engine's parser: each line of a continued instruction may begin one (engines differ in here-documents), quotes
and escapes are left out, and the value of a variable may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_DOCKERFILE = 1024 * 1024
"""Bytes."""
REMOTE = ("http://", "https://", "ftp://", "git://", "ssh://", "git@")
_INSTEAD = "use RUN curl, which runs in SLUICE_BUILD_NETWORK, or COPY a file of the context"
_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*(.*?)\s*", re.IGNORECASE)
_ADD = re.compile(r"\s*(?:onbuild\s+)?add\s", re.IGNORECASE)
_SCHEME = re.compile(r"\w://|^\W*git@", re.IGNORECASE)
_ODD = re.compile(r"^[^\w./*?~+-]+")
"""Characters that begin no ordinary path: an engine may drop some, as it does with a byte order mark."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_JSON_ESCAPE = re.compile(r"\\u[0-9a-f]{4}", re.IGNORECASE)
_QUOTES = str.maketrans(dict.fromkeys("\"'\\`\ufeff", ""))
_JSON = str.maketrans({**dict.fromkeys("[],\"'", " "), **dict.fromkeys("\\`\ufeff", "")})


class DockerfileError(Exception):
    """A Dockerfile that is refused: `line` from 1, and the reason."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True)
class Instruction:
    """Its continued lines in one `text`, without comments. `starts`: (line, offset in the text) of each."""

    text: str
    starts: tuple[tuple[int, int], ...]

    @property
    def first(self) -> int:
        return self.starts[0][0]

    @property
    def last(self) -> int:
        return self.starts[-1][0]


def instructions(text: str) -> Iterator[Instruction]:
    """Raises DockerfileError for control characters, and for a parser directive `escape` that engines read differently."""
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
    """Raises DockerfileError for an ADD, or an ONBUILD ADD, with a source that is remote or may be."""
    for instruction in instructions(text):
        for line, offset in instruction.starts:
            if found := _ADD.match(instruction.text, offset):
                _check_sources(instruction.text[found.end() :], line)
                break  # the sources of an ADD that begins at a later line are among those of this one


def _escape_of(lines: list[str]) -> str:
    """The escape character. All engines read the directive on the first line, and differ on the lines after it."""
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if found := _ESCAPE.fullmatch(line):
            if number > 1 or found[1] not in ("\\", "`"):
                raise DockerfileError(number, "the directive escape must be on line 1 and name \\ or `; move or remove it")
            return str(found[1])
    return "\\"


def _check_sources(rest: str, line: int) -> None:
    """`rest`: the flags, the sources and the destination. Flags look like local sources."""
    spellings = [rest.translate(_QUOTES).split()]
    if "[" in rest:  # may be a JSON array
        if _JSON_ESCAPE.search(rest):
            raise DockerfileError(line, "ADD has a JSON escape \\u; write the character itself")
        spellings.append(rest.translate(_JSON).split())
    for words in spellings:
        for word in words:
            if _SCHEME.search(word):
                raise DockerfileError(line, f"ADD of a remote source {word[:200]}; {_INSTEAD}")
        for word in words[:-1]:
            known, variable, _ = word.partition("$")
            if variable and any(scheme.startswith(_ODD.sub("", known).lower()) for scheme in REMOTE):
                fix = f"write ./{word[:200]} for a file of the context"
                raise DockerfileError(line, f"ADD of {word[:200]}, a variable that may hold a URL; {fix}, or {_INSTEAD}")
