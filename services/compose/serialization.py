"""Serialization of a merged Compose file, with the origin of each line as a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.compose.document import Node
from services.compose.places import HEADER, Place, comment

_ESCAPED = re.compile(r"[^ !#-\[\]-~]")
"""Every character that a quoted YAML scalar may not contain, or that it may contain only in ASCII's escapes."""


def serialize(root: Node) -> str:
    """Return the tree as YAML in ASCII.

    Values are interpolated already, so a `$` of theirs is escaped. A value whose interpolation failed stays as it was
    written, so that it is refused if it is used.
    """
    return HEADER + "".join(f"{line}\n" for line in _lines(root, ""))


def _lines(node: Node, indent: str) -> Iterator[str]:
    children = node.value.items() if isinstance(node.value, dict) else [(None, item) for item in _items(node)]
    for name, child in children:
        lead = f"{indent}-" if name is None else f"{indent}{_quoted(name)}:"
        place = comment(Place(child.source, child.line))
        if isinstance(child.value, dict | list) and child.value:
            yield lead + place
            yield from _lines(child, indent + "  ")
        else:
            yield f"{lead} {_scalar(child)}{place}"


def _items(node: Node) -> list[Node]:
    return node.value if isinstance(node.value, list) else []


def _scalar(node: Node) -> str:
    if isinstance(node.value, dict | list):
        return "{}" if isinstance(node.value, dict) else "[]"
    if node.trouble is not None:
        return _quoted(node.text)
    if isinstance(node.value, str):
        return _quoted(node.value.replace("$", "$$"))
    return node.text or "null"


def _quoted(text: str) -> str:
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in '"\\':
        return f"\\{match[0]}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
