"""Findings of reading a Compose file, and typed access to its values.

Findings are collected so that all are reported together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from services.compose.document import ComposeFinding, Node
from services.compose.keys import Key
from services.suggestions import MAX_SUGGESTIONS, did_you_mean
from services.units import parse_duration, parse_size

T = TypeVar("T")
_UNKNOWN = Key("refused", "unknown key")
_NOTHING: tuple[Any, ...] = (None, False, [], {})
"""Values by which a known key requests nothing. An unknown key is refused with them as well: it may be a typo."""


class Findings:
    """`refusals` and `warnings` in the order found; `counted`: number of keys by support."""

    def __init__(self) -> None:
        self.refusals: list[ComposeFinding] = []
        self.warnings: list[ComposeFinding] = []
        self.counted: Counter[str] = Counter()
        self._unknown = 0

    def unknown(self, node: Node, message: str, name: str, known: Iterable[str]) -> None:
        """Refuse an unknown name and suggest the nearest `known` one, for the first unknown names only."""
        self._unknown += 1
        self.refuse(node, message + (did_you_mean(name, known) if self._unknown <= MAX_SUGGESTIONS else ""))

    def refuse(self, node: Node, message: str) -> None:
        self.refusals.append(node.finding(message))

    def warn(self, node: Node, message: str) -> None:
        self.warnings.append(node.finding(message))

    def keys(self, node: Node, known: Mapping[str, Key]) -> dict[str, Node]:
        """Return the supported keys that have a value. Count the others and report them."""
        taken: dict[str, Node] = {}
        for name, value in self.mapping(node).items():
            key = known.get(name, _UNKNOWN)
            if key is _UNKNOWN and name == "x-sluice":
                self.refuse(value, "belongs to a service, or to one of its volumes in the long form")
            if key is _UNKNOWN and name.startswith("x-"):
                continue
            self.counted[key.support] += 1
            if key.support == "taken":
                if value.value is not None:
                    taken[name] = value
            elif key is _UNKNOWN:
                self.unknown(value, key.why, name, known)
            elif key.support == "refused" and value.value not in _NOTHING:
                self.refuse(value, key.why)
            elif key.support == "implied" and key.why and value.value not in _NOTHING:
                self.warn(value, key.why)
        return taken

    def mapping(self, node: Node) -> dict[str, Node]:
        """Return the mapping, {} for null. Any other value is refused and gives {}."""
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
        """Return the text as written, also of numbers. Any other value is refused and gives None."""
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
        return self._as(node, lambda text: parse_duration(_whole(text) if text.isdecimal() else text))

    def bytes(self, node: Node) -> int | None:
        return self._as(node, lambda text: parse_size(_whole(text) if text.isdecimal() else text))

    def pairs(self, node: Node) -> Iterator[tuple[str, str | None, Node]]:
        """Yield the pairs of `{NAME: value}` or `[NAME=value]`: name, text (None for a name alone) and node."""
        if isinstance(node.value, dict):
            for name, value in node.value.items():
                yield name, None if value.value is None and value.trouble is None else self.text(value), value
            return
        for item in self.items(node):
            text = self.text(item)
            if text is not None:
                name, equals, value_text = text.partition("=")
                yield name, value_text if equals else None, item

    def plain(self, node: Node) -> Any:
        """Return the value as JSON data."""
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
