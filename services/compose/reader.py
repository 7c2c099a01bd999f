"""Conversion of a Compose file to the services to deploy, in order (pure).

The inputs are the file, the caller's variables and the services that Sluice has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from services.compose.document import ComposeError, ComposeFinding, Node, parse
from services.compose.findings import Findings
from services.compose.keys import TOP
from services.compose.networks import Networks
from services.compose.service import ComposeService, ServiceReader
from services.compose.volumes import Volumes
from services.text_forms import SERVICE_NAME

PROJECT = r"[a-z0-9][a-z0-9_-]{0,62}"
_MAX_FINDINGS = 100


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
    - `unmanaged`: services that Sluice leaves alone.
    - `networks_of`: every service of the file → its networks.
    - `warnings`: those about the file itself.
    - `counted`: number of keys by support (taken, implied, refused).
    """

    project: str
    services: list[ComposeService]
    unmanaged: Set[str]
    networks_of: Mapping[str, tuple[str, ...]]
    networks: Networks
    warnings: list[ComposeFinding]
    counted: Counter[str]

    def connect(self, known: Set[str], running: Set[str]) -> None:
        """Set the links and networks of the services to deploy.

        Names of Sluice's services (`known`) lead through the gateway. Services that Sluice leaves alone, or that
        Compose still runs (`running`), are reached through Compose's networks.
        """
        managed = {service.name for service in self.services} | (known & self.networks_of.keys())
        elsewhere = {
            network
            for name in (self.unmanaged | running) & self.networks_of.keys() - managed
            for network in self.networks_of[name]
        }
        for service in self.services:
            own_networks = self.networks_of[service.name]
            neighbours = [
                name for name, networks in self.networks_of.items() if name in managed and set(networks) & set(own_networks)
            ]
            service.fields.setdefault("links", [name for name in neighbours if name != service.name])
            service.fields.setdefault("networks", self.networks.joined(own_networks, elsewhere))


def read(text: str, options: ComposeOptions) -> ComposeProject:
    """Read a file. Raises ComposeError with all errors, each with its line."""
    project, refusals = survey(text, options)
    if refusals:
        raise ComposeError(refusals[:_MAX_FINDINGS])
    return project


def survey(text: str, options: ComposeOptions) -> tuple[ComposeProject, list[ComposeFinding]]:
    """Read a file and return the result with all refusals. Raises ComposeError if it is no Compose file."""
    root = parse(text, options.variables)
    findings = Findings()
    top = findings.keys(root, TOP)
    services = findings.mapping(top["services"]) if "services" in top else {}
    if not services:
        raise ComposeError([ComposeFinding("services", 1, "is missing: a Compose file has services")])
    project = _project(findings, root, top, options)
    unmanaged = {name for name, node in services.items() if _is_unmanaged(findings, node)}
    selected = _select_services(findings, services, top["services"], unmanaged, options)
    declared = {name: findings.mapping(top[name]) if name in top else {} for name in ("volumes", "networks")}
    volumes = Volumes(findings, project, declared["volumes"], options.directory)
    networks = Networks(findings, project, declared["networks"])
    reader = ServiceReader(findings, project, volumes, options.variables, options.env_files)
    deployed = {name: name in selected for name in services}
    composed = {name: reader.read(name, services[name], deployed) for name in selected}
    networks_of = {name: networks.of(node, name in composed) for name, node in services.items()}
    _warn_of_stores(findings, composed)
    ordered = _order_by_dependency(findings, composed)
    for service in ordered:
        service.warnings += [
            warning for warning in findings.warnings if f"{warning.field}.".startswith(f"{service.node.path}.")
        ]
    general = [warning for warning in findings.warnings if not warning.field.startswith("services.")]
    return ComposeProject(project, ordered, unmanaged, networks_of, networks, general, findings.counted), findings.refusals


def _is_unmanaged(findings: Findings, service: Node) -> bool:
    """Return True if the service has `x-sluice: {manage: false}`."""
    extension = service.value.get("x-sluice") if isinstance(service.value, dict) else None
    manage = extension.value.get("manage") if extension is not None and isinstance(extension.value, dict) else None
    return manage is not None and findings.flag(manage) is False


def _project(findings: Findings, root: Node, top: dict[str, Node], options: ComposeOptions) -> str:
    name = options.project or (findings.text(top["name"]) if "name" in top else None)
    if name is None or not re.fullmatch(PROJECT, name):
        why = "must be the project's name, of a-z, 0-9, - and _; set name: in the file, or ?project="
        findings.refuse(top.get("name", Node("name", root.line, None)), why)
    return name or ""


def _select_services(
    findings: Findings, services: dict[str, Node], place: Node, unmanaged: Set[str], options: ComposeOptions
) -> list[str]:
    """Return the names of the services to deploy."""
    for name in options.only:
        if name not in services:
            findings.unknown(place, f'service "{name[:100]}" not found', name, services)
    selected = []
    for name, node in services.items():
        keys = findings.mapping(node)
        profiles_node = keys.get("profiles")
        profiles = {item.text for item in findings.items(profiles_node)} if profiles_node is not None else set()
        active = not profiles or bool(profiles & options.profiles) or "*" in options.profiles
        if name in unmanaged or not (name in options.only if options.only else active):
            continue
        if not re.fullmatch(SERVICE_NAME, name):
            why = "must be a DNS label of a-z, 0-9 and -, at most 40 characters; rename it to"
            findings.refuse(node, f'{why} "{re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40]}"')
        selected.append(name)
    if not selected and not findings.refusals:
        findings.refuse(place, "nothing to deploy: no service is selected, or none is managed")
    return selected


def _warn_of_stores(findings: Findings, composed: dict[str, ComposeService]) -> None:
    """Warn about services that are probably reached by other protocols than HTTP, such as databases.

    They are dependencies of others and keep data or have no port.
    """
    dependencies = {name for service in composed.values() for name in service.depends_on}
    for name in composed:
        fields = composed[name].fields
        stores = any(mount.get("type") != "tmpfs" for mount in fields.get("volumes") or [] if isinstance(mount, dict))
        if name in dependencies and (stores or "port" not in fields):
            why = "others reach it only by HTTP through the gateway; leave a database or queue to Compose"
            findings.warn(composed[name].node, f"{why}, by x-sluice: {{manage: false}}")


def _order_by_dependency(findings: Findings, composed: dict[str, ComposeService]) -> list[ComposeService]:
    """Return the services with each after its dependencies, otherwise in the file's order."""
    ordered: list[ComposeService] = []
    remaining = dict(composed)
    while remaining:
        startable = [name for name, service in remaining.items() if not set(service.depends_on) & remaining.keys()]
        if not startable:
            first_remaining = next(iter(remaining.values()))
            findings.refuse(first_remaining.node, f"depends on itself, by way of {', '.join(remaining)}"[:500])
            return [*ordered, *remaining.values()]
        ordered += [remaining.pop(name) for name in startable]
    return ordered
