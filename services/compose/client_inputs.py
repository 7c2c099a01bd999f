"""What a Compose file asks of whoever sends it: variables and files that lie with the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.compose.document import Node, parse
from services.compose.findings import Findings
from services.compose.interpolation import names
from services.compose.service import env_files


@dataclass(frozen=True)
class Needs:
    """`files`: path as written, with its variables filled in → whether it has to be there."""

    name: str | None
    variables: frozenset[str]
    files: Mapping[str, bool]


def needs_of(text: str, variables: Mapping[str, str]) -> Needs:
    """Of all services: which of them are wanted is for Sluice to say. Raises NotCompose for what is no mapping of YAML."""
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
