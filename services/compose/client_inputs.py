"""Inputs that a Compose file needs from its client: variables and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.compose.document import Node, parse
from services.compose.findings import Findings
from services.compose.interpolation import names
from services.compose.service import env_files


@dataclass(frozen=True)
class Needs:
    """Inputs of a file. `files`: interpolated path → True if the file is required."""

    name: str | None
    variables: frozenset[str]
    files: Mapping[str, bool]


def needs_of(text: str, variables: Mapping[str, str]) -> Needs:
    """Return the inputs of all services, because only the server decides which services are deployed.

    Raises ComposeError if the text is not a YAML mapping.
    """
    root = parse(text, variables)
    findings = Findings()
    top = root.value if isinstance(root.value, dict) else {}
    services = top["services"].value if "services" in top else None
    files: dict[str, bool] = {}
    alone: set[str] = set()
    for node in services.values() if isinstance(services, dict) else ():
        keys = node.value if isinstance(node.value, dict) else {}
        for path, required, _ in env_files(findings, keys):
            files[path] = files.get(path, False) or required
        environment = keys.get("environment", Node("", 1, None))
        alone |= {name for name, value, _ in findings.pairs(environment) if value is None}
    name = top["name"].text if "name" in top else ""
    return Needs(name or None, frozenset(names(text) | alone), files)
