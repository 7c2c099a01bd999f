"""The base images of a Dockerfile, and the Dockerfile with each of them pinned by its id (pure)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from services.builds.dockerfile import DockerfileError, Instruction, instructions

_FROM = re.compile(r"\s*from\s", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(?P<bare>\w+)|\{(?P<name>\w+)(?:(?P<operator>:?-)(?P<word>[^${}]*))?\})", re.ASCII)
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_SCRATCH = "scratch"


@dataclass(frozen=True)
class Base:
    """A FROM instruction.

    `reference`: the image with all variables resolved, None for scratch and earlier stages.
    """

    instruction: Instruction
    flags: tuple[str, ...]
    name: str
    reference: str | None
    stage: str | None


def bases_of(text: str, args: Mapping[str, str], target: str | None = None) -> list[Base]:
    """Return the FROM instructions that a build of the stage `target` needs, in order.

    Raises DockerfileError.
    """
    found: list[Base] = []
    values: dict[str, str | None] = {}
    for instruction in instructions(text):
        _refuse_hidden(instruction)
        words = instruction.text.split()
        keyword = words[0].lower()
        if keyword == "from":
            found.append(_base(instruction, words[1:], values, {base.stage for base in found}))
        elif keyword == "arg" and not found:
            _declare(instruction, args, values)
    ends = [number for number, base in enumerate(found) if target and target.lower() in (base.stage, str(number))]
    return found[: max(ends) + 1] if ends else found


def pin(text: str, bases: list[Base], ids: Mapping[str, str]) -> str:
    """Return the Dockerfile with each reference replaced by its id; the number of lines is the same."""
    lines = text.split("\n")
    for base in bases:
        image = ids[base.reference] if base.reference is not None else base.name
        stage = ("AS", base.stage) if base.stage else ()
        first, last = base.instruction.first, base.instruction.last
        lines[first - 1 : last] = [" ".join(("FROM", *base.flags, image, *stage)), *[""] * (last - first)]
    return "\n".join(lines)


def _base(instruction: Instruction, words: list[str], values: Mapping[str, str | None], stages: set[str | None]) -> Base:
    flags = [word for word in words if word.startswith("--")]
    names = words[len(flags) :]
    if words[: len(flags)] != flags or not _well_formed(names):
        raise DockerfileError(instruction.first, "FROM must be `FROM image` or `FROM image AS stage`")
    name = _resolved(instruction.first, names[0], values)
    stage = names[2].lower() if len(names) == 3 else None
    if name == _SCRATCH or name.lower() in stages:
        return Base(instruction, tuple(flags), name.lower(), None, stage)
    if not _REFERENCE.fullmatch(name):
        raise DockerfileError(instruction.first, f'FROM {names[0][:200]} names no image: it resolves to "{name[:200]}"')
    return Base(instruction, tuple(flags), name, name, stage)


def _declare(instruction: Instruction, args: Mapping[str, str], values: dict[str, str | None]) -> None:
    """Record the variables of an ARG above the first FROM."""
    try:
        words = shlex.split(instruction.text)[1:]
    except ValueError as error:
        raise DockerfileError(instruction.first, f"ARG cannot be read: {error}") from None
    for word in words:
        name, equals, default = word.partition("=")
        value = _resolved(instruction.first, default, values) if equals and name not in args else None
        values[name] = args.get(name, value)


def _resolved(line: int, word: str, values: Mapping[str, str | None]) -> str:
    def value(found: re.Match[str]) -> str:
        declared = values.get(found["bare"] or found["name"])
        missing = declared is None or (found["operator"] == ":-" and declared == "")
        return (found["word"] or "") if missing else str(declared)

    result = _VARIABLE.sub(value, word)
    if re.search(r"[$\"'\\`]", _VARIABLE.sub("", word)):
        raise DockerfileError(line, f"{word[:200]} cannot be resolved; write it with no quotes and $NAME or ${{NAME:-word}}")
    return result


def _refuse_hidden(instruction: Instruction) -> None:
    """Raise DockerfileError for a FROM on a later line of an instruction.

    An engine that reads here-documents may take it for an instruction of its own.
    """
    for line, offset in instruction.starts[1:]:
        if _FROM.match(instruction.text, offset):
            words = instruction.text[offset:].split()[1:]
            if _well_formed(words) or any(word.startswith("--") for word in words):
                raise DockerfileError(line, "FROM within another instruction; move it to a line of its own")


def _well_formed(names: list[str]) -> bool:
    return len(names) == 1 or (len(names) == 3 and names[1].lower() == "as")
