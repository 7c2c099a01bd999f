"""Spec files: sluice.yaml is `service: NAME` and the fields of the spec (docs/cli.md)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import yaml

from app.cli.errors import usage
from app.cli.input.envfile import read_env_file
from app.cli.input.files import InputFile
from services.compose.document import resolved_if_canonical
from services.compose.interpolation import interpolate

_DEEPEST = 32
_MERGE_TAG = "tag:yaml.org,2002:merge"


def read_spec(file: InputFile) -> dict[str, Any]:
    """Return the request's body that the file describes.

    Variables are interpolated as in a Compose file. The result contains only JSON types; unknown fields are left for
    Sluice to refuse. Raises CliError with the line or the field.
    """
    value = _load(file)
    if not isinstance(value, dict):
        raise usage(
            f"{file}: not a mapping of fields", "The file starts with `service: NAME`; `sluice init` writes an example."
        )
    return {str(name): plain(item, f"{file}: {name}") for name, item in value.items()}


def _load(file: InputFile) -> Any:
    try:
        loader = yaml.SafeLoader(file.text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            errors: list[str] = []
            _check(root, "", _variables(file), errors, set())
            if errors:
                advice = "Variables come from the environment and from .env beside the file; write $$ for a literal $."
                raise usage("\n".join(f"{file}, {error}" for error in errors), advice)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise usage(f"{file} is not YAML: {_where(error)}") from error


def _variables(file: InputFile) -> Mapping[str, str]:
    """Return this environment's variables over those of .env beside the file."""
    beside = file.directory / ".env"
    found = read_env_file(beside) if "$" in file.text and beside.exists() else {}
    return {**found, **os.environ}


def _check(node: yaml.Node, path: str, variables: Mapping[str, str], errors: list[str], seen: set[int]) -> None:
    """Interpolate the values of a tree, and report duplicate keys: only the last one would count."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        _interpolate(node, path, variables, errors)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _check(item, f"{path}[{number}]", variables, errors, seen)
    else:
        keys = set()
        for key, value in node.value:
            name = f"{path}.{key.value}".lstrip(".") if isinstance(key, yaml.ScalarNode) else path
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG:
                if key.value in keys:
                    errors.append(f"line {key.start_mark.line + 1}: {name}: duplicate key")
                keys.add(key.value)
            _check(value, name, variables, errors, seen)


def _interpolate(node: yaml.ScalarNode, path: str, variables: Mapping[str, str], errors: list[str]) -> None:
    if "$" not in node.value:
        return
    text, trouble = interpolate(node.value, variables)
    if trouble is not None:
        errors.append(f"line {node.start_mark.line + 1}: {path}: {trouble}")
    node.value = text
    if not node.style:
        node.tag = f"tag:yaml.org,2002:{type(resolved_if_canonical(text)).__name__}"


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return `value` with JSON types only.

    Raises CliError for a date, a name that is no text, a number that is not finite, and too deep nesting.
    """
    if depth > _DEEPEST:
        raise usage(f"{where}: nested too deeply")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise usage(f"{where}: the name {name!r} is not text", f'Write it in quotes: "{name}".')
        return {name: plain(item, f"{where}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise usage(f"{where}: {value} is not a finite number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise usage(f"{where}: YAML reads {str(value)!r} as a {type(value).__name__}", "Write it in quotes.")


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}" if mark else str(error)
