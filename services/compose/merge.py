"""Merge of several Compose files into one, by the rules of the Compose specification.

Mappings are merged key by key and lists are appended, with the exceptions of this module. Values are interpolated before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

from services.compose.document import OVERRIDE, RESET, ComposeError, Node, without_resets
from services.compose.ports import SHORT_PORT

_Path = tuple[str, ...]
_Rule = Callable[[Node, Node, _Path], Node]


def merge(files: Sequence[Node]) -> Node:
    """Return the tree of all files, each of which overrides those before it. Raises ComposeError."""
    return reduce(lambda base, over: without_resets(_merged(base, over, ())), files[1:], without_resets(files[0]))


def _merged(base: Node, over: Node, path: _Path) -> Node:
    if over.tag in (RESET, OVERRIDE):
        return over
    rule = _RULES.get(tuple("*" if number == 1 else name for number, name in enumerate(path)), _merge_generally)
    return rule(base, over, path)


def _merge_generally(base: Node, over: Node, path: _Path) -> Node:
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        return _merge_mappings(base, over, path)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return replace(over, value=[*base.value, *over.value])
    if base.value is None or not isinstance(base.value, dict | list):
        return over if base.value is None or not isinstance(over.value, dict | list) else _cannot_merge(base, over)
    return base if over.value is None else _cannot_merge(base, over)


def _merge_mappings(base: Node, over: Node, path: _Path) -> Node:
    """Return the mapping with the keys of both mappings, at the place of `over`."""
    values = dict(base.value) if isinstance(base.value, dict) else {}
    for name, node in over.value.items() if isinstance(over.value, dict) else ():
        values[name] = _merged(values[name], node, (*path, name)) if name in values else node
    return replace(over, value=values)


def _cannot_merge(base: Node, over: Node) -> Node:
    why = f"is {_form(over)}, but {_form(base)} in {base.source}, line {base.line}; replace it with the tag {OVERRIDE}"
    raise ComposeError([over.finding(why)])


def _form(node: Node) -> str:
    return "a mapping" if isinstance(node.value, dict) else "a list" if isinstance(node.value, list) else "a single value"


def _replace(_base: Node, over: Node, _path: _Path) -> Node:
    return over


def _by_name(base: Node, over: Node, path: _Path) -> Node:
    """Merge `{NAME: value}` or `[NAME=value]` name by name."""
    return _merge_converted(base, over, path, _pair)


def _by_reference(base: Node, over: Node, path: _Path) -> Node:
    """Merge `{NAME: {…}}` or `[NAME]` name by name."""
    return _merge_converted(base, over, path, lambda item: (item.text, Node(item.path, item.line, {}, source=item.source)))


def _merge_converted(base: Node, over: Node, path: _Path, convert: Callable[[Node], tuple[str, Node]]) -> Node:
    one, other = (
        replace(node, value=dict(map(convert, node.value)))
        if isinstance(node.value, list) and not any(isinstance(item.value, dict | list) for item in node.value)
        else node
        for node in (base, over)
    )
    return _merge_generally(one, other, path)


def _pair(item: Node) -> tuple[str, Node]:
    name, equals, text = item.text.partition("=")
    return name, replace(item, value=text if equals else None, text=text)


def _append(base: Node, over: Node, _path: _Path) -> Node:
    """Append lists; a single value is a list of one."""
    return replace(over, value=[*_listed(base), *_listed(over)])


def _listed(node: Node) -> list[Node]:
    if isinstance(node.value, list):
        return node.value
    return [] if node.value is None else [node]


def _unique(key: Callable[[Node], str | None]) -> _Rule:
    """Return the rule that appends lists, but replaces an item by a later one of the same key."""

    def rule(base: Node, over: Node, path: _Path) -> Node:
        if not isinstance(base.value, list) or not isinstance(over.value, list):
            return _merge_generally(base, over, path)
        items: dict[str, Node] = {}
        for number, item in enumerate([*base.value, *over.value]):
            known = None if item.trouble is not None else key(item)
            items[f"\0{number}" if known is None else known] = item
        return replace(over, value=list(items.values()))

    return rule


def _port(item: Node) -> str | None:
    if isinstance(item.value, dict):
        parts = {name: node.text for name, node in item.value.items()}
        ip, target, published = parts.get("host_ip"), parts.get("target"), parts.get("published")
        protocol = parts.get("protocol")
    else:
        match = SHORT_PORT.fullmatch(item.text)
        if match is None:
            return None
        ip, target, published, protocol = match["ip"], match["target"], match["published"], match["protocol"]
    return f"{(ip or '0.0.0.0').strip('[]')}:{published or ''}:{target}/{protocol or 'tcp'}"  # noqa: S104 - compared only


def _target(item: Node) -> str | None:
    """Return the path in the container of a volume."""
    if isinstance(item.value, dict):
        return item.value["target"].text if "target" in item.value else None
    source, _, rest = item.text.partition(":")
    return rest.partition(":")[0] or source


def _logging(base: Node, over: Node, path: _Path) -> Node:
    """Merge the options of one driver; another driver gets none of them."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return _merge_generally(base, over, path)
    drivers = [node.value["driver"].text for node in (base, over) if isinstance(node.value, dict) and "driver" in node.value]
    return over if len(set(drivers)) > 1 else _merge_mappings(base, over, path)


def _build(base: Node, over: Node, path: _Path) -> Node:
    one, other = (replace(node, value={"context": node}) if isinstance(node.value, str) else node for node in (base, over))
    return _merge_generally(one, other, path)


_RULES: dict[_Path, _Rule] = {
    ("services", "*", "command"): _replace,
    ("services", "*", "entrypoint"): _replace,
    ("services", "*", "healthcheck", "test"): _replace,
    ("services", "*", "environment"): _by_name,
    ("services", "*", "labels"): _by_name,
    ("services", "*", "annotations"): _by_name,
    ("services", "*", "sysctls"): _by_name,
    ("services", "*", "extra_hosts"): _by_name,
    ("services", "*", "build"): _build,
    ("services", "*", "build", "args"): _by_name,
    ("services", "*", "build", "labels"): _by_name,
    ("services", "*", "deploy", "labels"): _by_name,
    ("networks", "*", "labels"): _by_name,
    ("volumes", "*", "labels"): _by_name,
    ("services", "*", "depends_on"): _by_reference,
    ("services", "*", "networks"): _by_reference,
    ("services", "*", "env_file"): _append,
    ("services", "*", "label_file"): _append,
    ("services", "*", "tmpfs"): _append,
    ("services", "*", "dns"): _append,
    ("services", "*", "dns_opt"): _append,
    ("services", "*", "dns_search"): _append,
    ("services", "*", "ports"): _unique(_port),
    ("services", "*", "expose"): _unique(lambda item: item.text),
    ("services", "*", "volumes"): _unique(_target),
    ("services", "*", "logging"): _logging,
}
"""Path, in which `*` is any name → the rule that applies to it instead of the general one."""
