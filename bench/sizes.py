"""Sizes and import edges of a checkout's packages.

python -m bench.sizes [CHECKOUT]
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from bench.report import median
from tests.support.docker_cli import ROOT

PACKAGES = ("services.rollouts", "services.gateway", "services.engine", "app.cli", "app", "services")


def modules_of(root: Path) -> dict[str, Path]:
    """Return the modules of app and services by dotted name."""
    files = [file for base in ("app", "services") for file in (root / base).rglob("*.py")]
    return {
        str(file.relative_to(root)).removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in files
    }


def imports_of(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Return the modules that each module imports, of those given."""
    edges: defaultdict[str, set[str]] = defaultdict(set)
    for name, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
                continue
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                target = member if member in modules else node.module
                if target in modules and target != name:
                    edges[name].add(target)
    return edges


def part_of(module: str, package: str, file: Path) -> str:
    """Return the subpackage of `package` that holds the module, or the module itself."""
    first, *rest = module.removeprefix(f"{package}.").split(".")
    return first if rest or file.name == "__init__.py" else f"({first})"


def cycle_of(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or an empty list."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def measure(root: Path) -> dict[str, Any]:
    """Return line counts, parts and edges between parts for each package, and a cycle if there is one."""
    modules = modules_of(root)
    edges = imports_of(modules)
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules.items()}
    packages = {}
    for package in PACKAGES:
        inside = {name: part_of(name, package, file) for name, file in modules.items() if name.startswith(f"{package}.")}
        between = {
            (part, inside[target])
            for name, part in inside.items()
            for target in edges[name]
            if target in inside and inside[target] != part
        }
        packages[package] = {
            "modules": len(inside),
            "lines": sum(lines[name] for name in inside),
            "parts": len(set(inside.values())),
            "edges_between_parts": len(between),
        }
    sizes = sorted(size for name, size in lines.items() if modules[name].name != "__init__.py")
    return {
        "packages": packages,
        "module_lines": {"median": median(sizes), "p90": sizes[int(len(sizes) * 0.9)], "max": sizes[-1]},
        "cycle": cycle_of(edges),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT), indent=2))
