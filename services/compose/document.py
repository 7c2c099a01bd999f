"""Parser of a Compose file into a tree whose values know their place.

The tree is bounded. Variables are interpolated, and an interpolated value stays text: YAML does not parse the value
again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import yaml

from services.compose.interpolation import interpolate
from services.compose.places import Place, places_of

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 50_000
"""Maximum values including aliases: a few lines of aliases can stand for billions of values."""
MAX_TEXT = 4 * 1024 * 1024
"""Maximum characters of all values after interpolation."""

Scalar = str | int | float | bool | None
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]{1,3})?")
_WORDS: Mapping[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_YAML_TAG = "tag:yaml.org,2002:"
_TEXT_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"
RESET, OVERRIDE = "!reset", "!override"
"""Compose's tags of a file that overrides another one: remove the value; replace it, without merging."""


@dataclass(frozen=True)
class ComposeFinding:
    """A message about a place in the file. `field`: "services.web.cap_add"; `line` counts from 1.

    `source`: the file's name, if several are merged.
    """

    field: str
    line: int
    message: str
    source: str = ""

    @property
    def place(self) -> str:
        """The line, with its file if several are merged."""
        return f"{self.source}, line {self.line}" if self.source else f"line {self.line}"


class ComposeError(Exception):
    """The file cannot be read; `findings` say where and why."""

    def __init__(self, findings: list[ComposeFinding]) -> None:
        super().__init__("; ".join(f"{finding.field}: {finding.place}: {finding.message}" for finding in findings))
        self.findings = findings


@dataclass(frozen=True)
class Node:
    """A value: a scalar with its `text` as written, a list, or a mapping.

    The line of a mapping's value is that of its key. `source`: the file's name, if several are merged. `tag`: RESET,
    OVERRIDE or empty.
    """

    path: str
    line: int
    value: Scalar | list[Node] | dict[str, Node]
    text: str = ""
    trouble: str | None = None
    """Cause of a failed interpolation, reported only if the value is used."""
    source: str = ""
    tag: str = ""

    def finding(self, message: str) -> ComposeFinding:
        """Return a finding about this value."""
        return ComposeFinding(self.path[:300], self.line, message, self.source)


def parse(text: str, variables: Mapping[str, str]) -> Node:
    """Return the file's tree, without values that are tagged `!reset`. Raises ComposeError.

    Scalars are read by YAML 1.2, so `no` and `22:22` are text.
    """
    return without_resets(parse_layer(text, variables))


def parse_layer(text: str, variables: Mapping[str, str], source: str = "") -> Node:
    """Return the tree of one of several files, whose values have their tags. Raises ComposeError."""
    places = places_of(text)
    try:
        root = _parse(text, variables)
    except ComposeError as error:
        located = [(each, places.get(each.line, Place(source, each.line))) for each in error.findings]
        raise ComposeError([replace(each, line=place.line, source=place.source) for each, place in located]) from None
    return _located(root, places, source) if places or source else root


def _located(node: Node, places: Mapping[int, Place], source: str) -> Node:
    """Return the tree with the file and the line of each value."""
    place = places.get(node.line, Place(source, node.line))
    value = node.value
    if isinstance(value, dict):
        value = {name: _located(child, places, source) for name, child in value.items()}
    elif isinstance(value, list):
        value = [_located(child, places, source) for child in value]
    return replace(node, value=value, line=place.line, source=place.source)


def without_resets(node: Node) -> Node:
    """Return the tree without its values that are tagged `!reset`."""
    if isinstance(node.value, dict):
        retained = {name: without_resets(value) for name, value in node.value.items() if value.tag != RESET}
        return replace(node, value=retained)
    if isinstance(node.value, list):
        return replace(node, value=[without_resets(item) for item in node.value if item.tag != RESET])
    return node


def _parse(text: str, variables: Mapping[str, str]) -> Node:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ComposeError([ComposeFinding("body", 1, f"is larger than {MAX_BYTES} bytes")])
    try:
        root = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise ComposeError([ComposeFinding("body", 1, f"is nested more than {MAX_DEPTH} levels deep")]) from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = mark.line + 1 if mark is not None else 1
        raise ComposeError([ComposeFinding("body", line, f"is not YAML: {problem or error}"[:300])]) from None
    if not isinstance(root, yaml.MappingNode):
        raise ComposeError([ComposeFinding("body", 1, "must be a mapping with services: in it")])
    return _Builder(variables).build(root, "", 1, MAX_DEPTH)


@dataclass
class _Builder:
    variables: Mapping[str, str]
    nodes: int = 0
    characters: int = 0
    open: set[int] = field(default_factory=set)

    def build(self, node: yaml.Node, path: str, line: int, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ComposeError([ComposeFinding(path or "body", line, f"has more than {MAX_NODES} values, aliases counted")])
        if depth == 0 or id(node) in self.open:
            why = f"is nested more than {MAX_DEPTH} levels deep" if depth == 0 else "contains itself"
            raise ComposeError([ComposeFinding(path or "body", line, why)])
        tag = node.tag if node.tag in (RESET, OVERRIDE) else ""
        if not tag and not node.tag.startswith(_YAML_TAG):
            raise ComposeError([ComposeFinding(path or "body", line, f"the tag {node.tag[:60]} is not supported")])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line, tag)
        self.open.add(id(node))
        value: list[Node] | dict[str, Node]
        if isinstance(node, yaml.MappingNode):
            value = self._mapping(node, path, line, depth)
        else:
            items = enumerate(node.value)
            value = [self.build(item, f"{path}.{n}", item.start_mark.line + 1, depth - 1) for n, item in items]
        self.open.discard(id(node))
        return Node(path, line, value, tag=tag)

    def _mapping(self, node: yaml.MappingNode, path: str, line: int, depth: int) -> dict[str, Node]:
        """Return a mapping with its merges (`<<`) applied.

        Keys written beside a merge override it; of several merges the first one wins.
        """
        values: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            line_number = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ComposeError([ComposeFinding(path or "body", line_number, "has a key that is not text")])
            if key.tag == _MERGE_TAG:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise ComposeError(
                            [ComposeFinding(f"{path}.<<".lstrip("."), line_number, "must be a mapping, or a list of them")]
                        )
                    merged = {**self._merged(source, path, line_number, depth), **merged}
                continue
            name = f"{path}.{key.value}".lstrip(".")[:300]
            if key.value in values:
                raise ComposeError([ComposeFinding(name, line_number, "duplicate key")])
            values[key.value] = self.build(value, name, line_number, depth - 1)
        return {**merged, **values}

    def _merged(self, source: yaml.MappingNode, path: str, line: int, depth: int) -> dict[str, Node]:
        value = self.build(source, path, line, depth - 1).value
        return value if isinstance(value, dict) else {}

    def _scalar(self, node: yaml.ScalarNode, path: str, line: int, tag: str) -> Node:
        text, trouble = node.value, None
        if "$" in text:
            text, trouble = interpolate(text, self.variables)
        self.characters += len(text)
        if self.characters > MAX_TEXT:
            raise ComposeError([ComposeFinding(path, line, f"makes the file longer than {MAX_TEXT} characters")])
        value: Scalar = text
        if not node.style and "$" in node.value:
            value = resolved_if_canonical(text)
        elif not node.style and node.tag != _TEXT_TAG:
            value = _resolved(text)
        return Node(path, line, value, text, trouble, tag=tag)


def resolved_if_canonical(text: str) -> str | int | float | bool:
    """Return the number or boolean that is written in no other way than `text`, else the text.

    So `replicas: ${N}` is a number, and a value such as `010` or `1.10` of a variable stays as it is.
    """
    value = _resolved(text)
    if isinstance(value, bool):
        return value if text == str(value).lower() else text
    return value if isinstance(value, int | float) and text == str(value) else text


def _resolved(text: str) -> Scalar:
    """Return a plain scalar's value by YAML 1.2's core schema, as Compose does."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
