"""What is found while a Compose file is read: everything is said at once, and every value is asked for by its type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from services.compose.document import Finding, Node
from services.compose.keys import Key
from services.nearest import MAX_SUGGESTIONS, suggestion
from services.units import duration, size

T = TypeVar("T")
_UNKNOWN = Key("refused", "is not a key that Compose knows")
_NOTHING: tuple[Any, ...] = (None, False, [], {})
"""Values by which a key asks for nothing."""


class Findings:
    """`refusals` and `warnings` in the order in which they were found; `counted`: keys by what became of them."""

    def __init__(self) -> None:
        self.refusals: list[Finding] = []
        self.warnings: list[Finding] = []
        self.counted: Counter[str] = Counter()
        self._unknown = 0

    def unknown(self, node: Node, message: str, name: str, known: Iterable[str]) -> None:
        """Refuse a name that is not among those `known`, with the nearest of them, unless there were many already."""
        self._unknown += 1
        self.refuse(node, message + (suggestion(name, known) if self._unknown <= MAX_SUGGESTIONS else ""))

    def refuse(self, node: Node, message: str) -> None:
        self.refusals.append(Finding(node.path[:300], node.line, message))

    def warn(self, node: Node, message: str) -> None:
        self.warnings.append(Finding(node.path[:300], node.line, message))

    def keys(self, node: Node, known: Mapping[str, Key]) -> dict[str, Node]:
        """The keys that are taken, those with no value left out; the others are counted and told of."""
        taken: dict[str, Node] = {}
        for name, value in self.mapping(node).items():
            key = known.get(name, _UNKNOWN)
            if key is _UNKNOWN and name.startswith("x-"):
                continue
            self.counted[key.support] += 1
            if key.support == "taken":
                if value.value is not None:
                    taken[name] = value
            elif key.support == "refused" and value.value not in _NOTHING and key is _UNKNOWN:
                self.unknown(value, key.why, name, known)
            elif key.support == "refused" and value.value not in _NOTHING:
                self.refuse(value, key.why)
            elif key.support == "implied" and key.why:
                self.warn(value, key.why)
        return taken

    def mapping(self, node: Node) -> dict[str, Node]:
        """{} for what is none, which is said, and for null."""
        if isinstance(node.value, dict):
            return node.value
        if node.value is not None:
            self.refuse(node, "must be a mapping")
        return {}

    def items(self, node: Node) -> list[Node]:
        if isinstance(node.value, list):
            return node.value
        if node.value is not None:
            self.refuse(node, "must be a list")
        return []

    def text(self, node: Node) -> str | None:
        """As written, numbers too; None for what is no text, which is said."""
        if node.trouble is not None:
            self.refuse(node, node.trouble)
        elif isinstance(node.value, dict | list) or node.value is None:
            self.refuse(node, "must be text")
        else:
            return node.text
        return None

    def flag(self, node: Node) -> bool | None:
        return self._as(node, _flag)

    def whole(self, node: Node) -> int | None:
        return self._as(node, _whole)

    def number(self, node: Node) -> float | None:
        return self._as(node, _number)

    def seconds(self, node: Node) -> float | None:
        return self._as(node, lambda text: duration(_whole(text) if text.isdecimal() else text))

    def bytes(self, node: Node) -> int | None:
        return self._as(node, lambda text: size(_whole(text) if text.isdecimal() else text))

    def pairs(self, node: Node) -> Iterator[tuple[str, str | None, Node]]:
        """`{NAME: value}` or `[NAME=value]`: name, text (None: the name alone), and where it stands."""
        if isinstance(node.value, dict):
            for name, value in node.value.items():
                yield name, None if value.value is None and value.trouble is None else self.text(value), value
            return
        for item in self.items(node):
            text = self.text(item)
            if text is not None:
                name, given, rest = text.partition("=")
                yield name, rest if given else None, item

    def plain(self, node: Node) -> Any:
        """The value as JSON has it."""
        if node.trouble is not None:
            self.refuse(node, node.trouble)
            return None
        if isinstance(node.value, dict):
            return {name: self.plain(value) for name, value in node.value.items()}
        return [self.plain(item) for item in node.value] if isinstance(node.value, list) else node.value

    def _as(self, node: Node, read: Callable[[str], T]) -> T | None:
        text = self.text(node)
        try:
            return None if text is None else read(text)
        except ValueError as error:
            self.refuse(node, str(error))
            return None


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None
