"""Conversion of a Compose file to the services to deploy, in order (pure).

The inputs are the file, the caller's variables and the services that Sluice has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from services.compose.document import ComposeError, Finding, Node, parse
from services.compose.findings import Findings
from services.compose.keys import TOP
from services.compose.networks import Networks
from services.compose.service import ComposeService, ServiceReader
from services.compose.volumes import Volumes
from services.spec import SERVICE_NAME

PROJECT = r"[a-z0-9][a-z0-9_-]{0,62}"
_MOST_FINDINGS = 100


@dataclass(frozen=True)
class ComposeOptions:
    """Options that come with a file.

    - `project`: overrides the file's own `name`.
    - `directory`: the client's directory, the base of relative paths.
    - `only`: the services to deploy, all if empty.
    - `profiles`: Compose's profiles.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    env_files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    project: str | None = None
    directory: str | None = None
    only: Sequence[str] = ()
    profiles: Set[str] = frozenset()


@dataclass(frozen=True)
class ComposeProject:
    """The result of reading a file.

    - `services`: in the order in which they may start.
    - `alone`: services that Sluice leaves alone.
    - `stands`: every service of the file → its networks.
    - `warnings`: those about the file itself.
    - `counted`: number of keys by support (taken, implied, refused).
    """

    project: str
    services: list[ComposeService]
    alone: Set[str]
    stands: Mapping[str, tuple[str, ...]]
    networks: Networks
    warnings: list[Finding]
    counted: Counter[str]

    def connect(self, known: Set[str], running: Set[str]) -> None:
        """Set the links and networks of the services to deploy.

        Names of Sluice's services (`known`) lead through the gateway. Services that Sluice leaves alone, or that
        Compose still runs (`running`), are reached through Compose's networks.
        """
        ours = {each.name for each in self.services} | (known & self.stands.keys())
        elsewhere = {network for name in (self.alone | running) & self.stands.keys() - ours for network in self.stands[name]}
        for each in self.services:
            mine = self.stands[each.name]
            beside = [name for name, theirs in self.stands.items() if name in ours and set(theirs) & set(mine)]
            each.fields.setdefault("links", [name for name in beside if name != each.name])
            each.fields.setdefault("networks", self.networks.joined(mine, elsewhere))


def read(text: str, given: ComposeOptions) -> ComposeProject:
    """Read a file. Raises ComposeError with all errors, each with its line."""
    reading, refusals = survey(text, given)
    if refusals:
        raise ComposeError(refusals[:_MOST_FINDINGS])
    return reading


def survey(text: str, given: ComposeOptions) -> tuple[ComposeProject, list[Finding]]:
    """Read a file and return the result with all refusals. Raises ComposeError if it is no Compose file."""
    root = parse(text, given.variables)
    findings = Findings()
    top = findings.keys(root, TOP)
    services = findings.mapping(top["services"]) if "services" in top else {}
    if not services:
        raise ComposeError([Finding("services", 1, "is missing: a Compose file has services")])
    project = _project(findings, root, top, given)
    alone = {name for name, node in services.items() if _is_left_alone(findings, node)}
    taken = _taken(findings, services, top["services"], alone, given)
    declared = {name: findings.mapping(top[name]) if name in top else {} for name in ("volumes", "networks")}
    volumes = Volumes(findings, project, declared["volumes"], given.directory)
    networks = Networks(findings, project, declared["networks"])
    reader = ServiceReader(findings, project, volumes, given.variables, given.env_files)
    beside = {name: name in taken for name in services}
    wanted = {name: reader.read(name, services[name], beside) for name in taken}
    stands = {name: networks.of(node, name in wanted) for name, node in services.items()}
    _warn_of_stores(findings, wanted)
    ordered = _ordered(findings, wanted)
    for each in ordered:
        each.warnings += [warning for warning in findings.warnings if f"{warning.field}.".startswith(f"{each.node.path}.")]
    general = [warning for warning in findings.warnings if not warning.field.startswith("services.")]
    return ComposeProject(project, ordered, alone, stands, networks, general, findings.counted), findings.refusals


def _is_left_alone(findings: Findings, service: Node) -> bool:
    """Return True if the service has `x-sluice: {manage: false}`."""
    extension = service.value.get("x-sluice") if isinstance(service.value, dict) else None
    manage = extension.value.get("manage") if extension is not None and isinstance(extension.value, dict) else None
    return manage is not None and findings.flag(manage) is False


def _project(findings: Findings, root: Node, top: dict[str, Node], given: ComposeOptions) -> str:
    name = given.project or (findings.text(top["name"]) if "name" in top else None)
    if name is None or not re.fullmatch(PROJECT, name):
        why = "must be the project's name, of a-z, 0-9, - and _: say name: in the file, or ?project="
        findings.refuse(top.get("name", Node("name", root.line, None)), why)
    return name or ""


def _taken(findings: Findings, services: dict[str, Node], place: Node, alone: Set[str], given: ComposeOptions) -> list[str]:
    """Return the names of the services to deploy."""
    for name in given.only:
        if name not in services:
            findings.unknown(place, f'there is no service "{name[:100]}"', name, services)
    taken = []
    for name, node in services.items():
        keys = findings.mapping(node)
        listed = keys.get("profiles")
        wanted = {item.text for item in findings.items(listed)} if listed is not None else set()
        active = not wanted or bool(wanted & given.profiles) or "*" in given.profiles
        if name in alone or not (name in given.only if given.only else active):
            continue
        if not re.fullmatch(SERVICE_NAME, name):
            why = "a service's name is a DNS label here, of a-z, 0-9 and -, at most 40: call it"
            findings.refuse(node, f'{why} "{re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40]}"')
        taken.append(name)
    if not taken and not findings.refusals:
        findings.refuse(place, "there is nothing to deploy: no service is wanted, or all are left alone")
    return taken


def _warn_of_stores(findings: Findings, wanted: dict[str, ComposeService]) -> None:
    """Warn about services that are probably reached by other protocols than HTTP, such as databases.

    They are dependencies of others and keep data or have no port.
    """
    needed = {name for each in wanted.values() for name in each.depends_on}
    for name in wanted:
        fields = wanted[name].fields
        stores = any(mount.get("type") != "tmpfs" for mount in fields.get("volumes") or [] if isinstance(mount, dict))
        if name in needed and (stores or "port" not in fields):
            why = "others reach it through the gateway, by HTTP alone: a database or a queue is better left with Compose"
            findings.warn(wanted[name].node, f"{why}, by x-sluice: {{manage: false}}")


def _ordered(findings: Findings, wanted: dict[str, ComposeService]) -> list[ComposeService]:
    """Return the services with each after its dependencies, otherwise in the file's order."""
    ordered: list[ComposeService] = []
    left = dict(wanted)
    while left:
        free = [name for name, each in left.items() if not set(each.depends_on) & left.keys()]
        if not free:
            first = next(iter(left.values()))
            findings.refuse(first.node, f"depends on itself, by way of {', '.join(left)}"[:500])
            return [*ordered, *left.values()]
        ordered += [left.pop(name) for name in free]
    return ordered
