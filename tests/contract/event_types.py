"""Event types that the code can record.

Found by following the argument `type` of `Event(…)` back to literals.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

UNKNOWN = "*"
"""Marks a value that is known only at run time."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = tuple[ast.AST, ...]
"""The module, then the functions from the outermost to the innermost."""
Parameter = tuple[Function, str]
Pattern = tuple[str, Parameter | None, str]
"""A text, the parameter whose value follows (None: none), and a text."""


@dataclass
class Source:
    """All calls, methods and enum members of the code."""

    calls: list[tuple[ast.Call, Scope]] = field(default_factory=list)
    methods: set[Function] = field(default_factory=set)
    members: dict[tuple[str, str], str] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        module = ast.parse(path.read_text())
        self._walk(module, (module,))

    def _walk(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            inside = scope
            if isinstance(child, Function):
                inside = (*scope, child)
                if isinstance(node, ast.ClassDef):
                    self.methods.add(child)
            elif isinstance(child, ast.Call):
                self.calls.append((child, scope))
            elif isinstance(child, ast.ClassDef):
                self._members(child)
            self._walk(child, inside)

    def _members(self, definition: ast.ClassDef) -> None:
        for line in definition.body:
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str):
                for target in line.targets:
                    if isinstance(target, ast.Name):
                        self.members[definition.name, target.id] = line.value.value


def event_types(roots: Sequence[Path]) -> list[str]:
    """Return the event types, sorted; `*` stands for a part that the code does not determine."""
    source = Source()
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            source.read(path)
    found: set[str] = set()
    waiting: list[Pattern] = []
    seen: set[Pattern] = set()

    def take(patterns: set[Pattern]) -> None:
        found.update(before + after for before, parameter, after in patterns if parameter is None)
        new = {pattern for pattern in patterns if pattern[1] is not None} - seen
        seen.update(new)
        waiting.extend(new)

    for call, scope in source.calls:
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if _name(call.func) == "Event" and {"at", "type"} <= set(keywords):
            take(_patterns(keywords["type"], scope, source))
    while waiting:
        before, parameter, after = waiting.pop()
        assert parameter is not None
        writer, wanted = parameter
        for call, scope in source.calls:
            if _name(call.func) != writer.name:
                continue
            argument = _bound(call, writer, method=writer in source.methods).get(wanted)
            if argument is not None:
                take({(before + b, inner, a + after) for b, inner, a in _patterns(argument, scope, source)})
    return sorted(found)


def _patterns(value: ast.expr, scope: Scope, source: Source) -> set[Pattern]:
    """Return all texts that the expression may evaluate to."""
    match value:
        case ast.Constant(value=None):
            return set()
        case ast.Constant(value=str(text)):
            return {(text, None, "")}
        case ast.IfExp(body=one, orelse=other):
            return _patterns(one, scope, source) | _patterns(other, scope, source)
        case ast.BoolOp(values=values):
            return set().union(*(_patterns(part, scope, source) for part in values))
        case ast.Call(func=ast.Name(id="str"), args=[inner]) | ast.FormattedValue(value=inner):
            return _patterns(inner, scope, source)
        case ast.JoinedStr(values=values):
            return {_joined(chosen) for chosen in product(*(_patterns(part, scope, source) for part in values))}
        case ast.Attribute(value=ast.Name(id=enum), attr=member) if (enum, member) in source.members:
            return {(source.members[enum, member], None, "")}
        case ast.Name(id=name):
            return _named(name, scope, source)
    return {(UNKNOWN, None, "")}


def _named(name: str, scope: Scope, source: Source) -> set[Pattern]:
    """Return the patterns of the innermost parameter or variable of this name."""
    for depth in range(len(scope) - 1, -1, -1):
        owner = scope[depth]
        if isinstance(owner, Function) and name in {argument.arg for argument in _arguments(owner)}:
            return {("", (owner, name), "")}
        assigned = [_patterns(value, scope[: depth + 1], source) for value in _assigned(name, owner)]
        if assigned:
            return set().union(*assigned)
    return {(UNKNOWN, None, "")}


def _joined(parts: Sequence[Pattern]) -> Pattern:
    """Join patterns into one; only the first parameter can be followed."""
    before, after = "", ""
    parameter: Parameter | None = None
    for text, name, rest in parts:
        if parameter is None:
            before, parameter, after = before + text, name, rest
        else:
            after += text + (UNKNOWN if name else "") + rest
    return before, parameter, after


def _assigned(name: str, owner: ast.AST) -> Iterator[ast.expr]:
    """Yield the values assigned to a variable, alone or in a tuple.

    Functions are searched as a whole, modules at the top level only.
    """
    for node in owner.body if isinstance(owner, ast.Module) else ast.walk(owner):
        if isinstance(node, ast.AnnAssign | ast.NamedExpr) and _name(node.target) == name and node.value is not None:
            yield node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _matching(name, target, node.value)


def _matching(name: str, target: ast.expr, value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.IfExp):
        yield from _matching(name, target, value.body)
        yield from _matching(name, target, value.orelse)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for left, right in zip(target.elts, value.elts, strict=False):
            yield from _matching(name, left, right)


def _bound(call: ast.Call, function: Function, *, method: bool) -> dict[str, ast.expr]:
    """Return the call's arguments by parameter; empty if the call cannot be one of this function."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][1 if method else 0 :]
    required = names[: len(names) - len(arguments.defaults)]
    required += [a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    starred = next((at for at, value in enumerate(call.args) if isinstance(value, ast.Starred)), None)
    positional = call.args if starred is None else [*call.args[:starred], *[ast.Name(UNKNOWN)] * (len(names) - starred)]
    given = dict(zip(names, positional, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    known = {argument.arg for argument in _arguments(function)}
    fits = len(positional) <= len(names) and set(required) <= set(given) and (arguments.kwarg or set(given) <= known)
    return given if fits else {}


def _arguments(function: Function) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def _name(value: ast.expr) -> str:
    """Return the last part of a dotted name."""
    return value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
