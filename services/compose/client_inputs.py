"""Inputs that a Compose file needs from its client: variables and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.compose.document import ComposeError, Node, parse
from services.compose.findings import Findings
from services.compose.interpolation import names
from services.compose.service import env_files


@dataclass(frozen=True)
class NeededFile:
    """An env_file. `required`: a missing one is an error. `raw`: its values are taken literally."""

    required: bool
    raw: bool


@dataclass(frozen=True)
class ClientInputs:
    """Inputs of a file. `files`: by interpolated path."""

    name: str | None
    variables: frozenset[str]
    files: Mapping[str, NeededFile]


def client_inputs_of(text: str, variables: Mapping[str, str]) -> ClientInputs:
    """Return the inputs of all services, because only the server decides which services are deployed.

    Raises ComposeError if the text is not a YAML mapping, or reads a file in two formats.
    """
    root = parse(text, variables)
    findings = Findings()
    top = root.value if isinstance(root.value, dict) else {}
    services = top["services"].value if "services" in top else None
    files: dict[str, NeededFile] = {}
    alone: set[str] = set()
    for node in services.values() if isinstance(services, dict) else ():
        keys = node.value if isinstance(node.value, dict) else {}
        for file in env_files(findings, keys):
            known = files.get(file.path, NeededFile(required=False, raw=file.raw))
            if known.raw != file.raw:
                why = f"{file.path[:100]} has format: raw in one place and not in another"
                raise ComposeError([file.node.finding(why)])
            files[file.path] = NeededFile(required=known.required or file.required, raw=file.raw)
        environment = keys.get("environment", Node("", 1, None))
        alone |= {name for name, value, _ in findings.pairs(environment) if value is None}
    name = top["name"].text if "name" in top else ""
    return ClientInputs(name or None, frozenset(names(text) | alone), files)
