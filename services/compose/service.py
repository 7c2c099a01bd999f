"""Conversion of one service of a Compose file to spec fields, each with its place in the file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from services.compose.deploy_options import JOB, Fields, deploy, healthcheck, logging, restart, scale_and_limits, unite
from services.compose.document import ComposeFinding, Node
from services.compose.findings import Findings
from services.compose.keys import DEPENDENCY, ENV_FILE, SERVICE
from services.compose.ports import port_of
from services.compose.volumes import Volumes

PROJECT_LABEL = "compose.project"
"""Label of services deployed from a Compose file: their project.

It keeps another project's file from taking them over.
"""
_NOT_BUILT = "has no image; build it (sluice build SERVICE DIRECTORY prints the tag), and set image:"


@dataclass
class ComposeService:
    """A service to deploy.

    - `places`: spec field ("environment.DEBUG") → its node in the file.
    - `depends_on`: service name → True if required.
    """

    name: str
    node: Node
    fields: dict[str, Any]
    places: dict[str, Node]
    depends_on: dict[str, bool]
    warnings: list[ComposeFinding] = field(default_factory=list)

    def finding_at(self, spec_field: str, message: str) -> ComposeFinding:
        """Return the finding about an invalid spec field, with its place as precisely as the file allows."""
        name = spec_field
        while name and name not in self.places:
            name = name.rpartition(".")[0]
        node = self.places.get(name, self.node)
        rest = spec_field[len(name) :].strip(".")
        return replace(node.finding(message), field=f"{node.path}.{rest}".rstrip("."))


class ServiceReader:
    """Reader of the services of a file.

    `variables`: the caller's, for names without a value. `env_files`: path as written in the file → its variables.
    """

    def __init__(
        self,
        findings: Findings,
        project: str,
        volumes: Volumes,
        variables: Mapping[str, str],
        env_files: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._findings = findings
        self._project = project
        self._volumes = volumes
        self._variables = variables
        self._env_files = env_files

    def read(self, name: str, node: Node, deployed_services: Mapping[str, bool]) -> ComposeService:
        """Convert one service.

        `deployed_services`: the file's services → True if deployed as well. Dependencies on others are dropped.
        """
        findings = self._findings
        keys = findings.keys(node, SERVICE)
        overrides = self._spec_overrides(keys)
        fields: Fields = {}
        self._image(node, keys, fields)
        for words in ("command", "entrypoint"):
            if words in keys:
                fields[words] = (self._argument_list(keys[words]), keys[words])
        for text in ("user", "working_dir", "stop_signal"):
            if text in keys:
                fields[text] = (findings.text(keys[text]), keys[text])
        if "stop_grace_period" in keys:
            fields["stop_grace_period"] = (findings.seconds(keys["stop_grace_period"]), keys["stop_grace_period"])
        if "init" in keys:
            fields["init"] = (findings.flag(keys["init"]), keys["init"])
        for section, read in (("healthcheck", healthcheck), ("deploy", deploy), ("logging", logging)):
            if section in keys:
                fields |= read(findings, keys[section])
        unite(findings, fields, scale_and_limits(findings, keys))
        if "restart" in keys:
            restart(findings, keys["restart"])
        port = port_of(findings, keys, {key: value for key, (value, _) in overrides.items()})
        if port is not None:
            fields["port"] = port
        places: dict[str, Node] = {}
        environment = self._environment(keys, places)
        labels = {key: text or "" for key, text, _ in findings.pairs(keys["labels"])} if "labels" in keys else {}
        mounts, mounted = self._volumes.of(keys)
        places |= {f"volumes.{number}": place for number, place in enumerate(mounted)}
        fields["environment"] = (environment, keys.get("environment", node))
        fields["labels"] = (labels, keys.get("labels", node))
        fields["volumes"] = (mounts, keys.get("volumes", node))
        fields |= overrides
        if isinstance(fields["labels"][0], dict):
            fields["labels"][0][PROJECT_LABEL] = self._project
        places = {path: place for path, place in places.items() if path.partition(".")[0] not in overrides}
        places |= {key: place for key, (_, place) in fields.items()}
        values = {key: value for key, (value, _) in fields.items()}
        return ComposeService(name, node, values, places, self._dependencies(keys, deployed_services))

    def _spec_overrides(self, keys: dict[str, Node]) -> Fields:
        """Return the spec fields that x-sluice sets; it may set any."""
        extension = self._findings.mapping(keys["x-sluice"]) if "x-sluice" in keys else {}
        return {name: (self._findings.plain(node), node) for name, node in extension.items() if name != "manage"}

    def _image(self, node: Node, keys: dict[str, Node], fields: Fields) -> None:
        if "image" in keys:
            fields["image"] = (self._findings.text(keys["image"]), keys["image"])
            if "build" in keys:
                self._findings.warn(keys["build"], "ignored: the image is deployed from its registry")
        else:
            self._findings.refuse(keys.get("build", node), _NOT_BUILT)

    def _argument_list(self, node: Node) -> list[str | None] | None:
        """Return a list unchanged, and a line split as a shell would."""
        if isinstance(node.value, list):
            return [self._findings.text(item) for item in node.value]
        line = self._findings.text(node)
        try:
            return None if line is None else list(shlex.split(line))
        except ValueError as error:
            self._findings.refuse(node, f"cannot be split into words: {error}")
            return None

    def _environment(self, keys: dict[str, Node], places: dict[str, Node]) -> dict[str, str]:
        """Return the environment: variables of env_files, overridden by those in the Compose file.

        A name without a value takes the caller's variable, if there is one.
        """
        result: dict[str, str] = {}
        for file in env_files(self._findings, keys):
            if file.path in self._env_files:
                result |= self._env_files[file.path]
            elif file.required:
                why = "is a local file: deploy with `sluice deploy -f`, or send its content as env_files in the body"
                self._findings.refuse(file.node, why)
        for name, text, node in self._findings.pairs(keys["environment"]) if "environment" in keys else ():
            value = self._variables.get(name) if text is None else text
            if value is not None:
                result[name] = value
                places[f"environment.{name}"] = node
        return result

    def _dependencies(self, keys: dict[str, Node], deployed_services: Mapping[str, bool]) -> dict[str, bool]:
        findings = self._findings
        result: dict[str, tuple[bool, Node]] = {}
        for link in findings.items(keys["links"]) if "links" in keys else ():
            name, _, alias = (findings.text(link) or "").partition(":")
            if alias not in ("", name):
                findings.refuse(link, "aliases of a service are not supported")
            result[name] = (True, link)
        listed = keys.get("depends_on")
        if listed is not None and isinstance(listed.value, dict):
            for name, node in listed.value.items():
                result[name] = (self._is_required(node, deployed=deployed_services.get(name, False)), node)
        elif listed is not None:
            result |= {item.text: (True, item) for item in findings.items(listed)}
        for name, (_, node) in result.items():
            if name not in deployed_services:
                findings.refuse(node, f'service "{name[:100]}" not found')
        return {name: required for name, (required, _) in result.items() if deployed_services.get(name)}

    def _is_required(self, node: Node, *, deployed: bool) -> bool:
        """Return True if the dependency is required.

        A deployment succeeds only once its service is started and healthy, so both conditions mean the same.
        """
        keys = self._findings.keys(node, DEPENDENCY)
        condition = self._findings.text(keys["condition"]) if "condition" in keys else "service_started"
        if condition == "service_completed_successfully" and deployed:
            self._findings.refuse(keys["condition"], JOB)
        elif condition not in (None, "service_started", "service_healthy", "service_completed_successfully"):
            self._findings.refuse(keys["condition"], "must be service_started or service_healthy")
        return "required" not in keys or self._findings.flag(keys["required"]) is not False


@dataclass(frozen=True)
class EnvFile:
    """An entry of `env_file`. `path`: as written; `raw`: the client takes the file's values literally."""

    path: str
    required: bool
    raw: bool
    node: Node


def env_files(findings: Findings, keys: dict[str, Node]) -> list[EnvFile]:
    """Return the env_file entries of a service."""
    listed = keys.get("env_file")
    result: list[EnvFile] = []
    for node in () if listed is None else listed.value if isinstance(listed.value, list) else (listed,):
        attributes = findings.keys(node, ENV_FILE) if isinstance(node.value, dict) else {"path": node}
        path = findings.text(attributes["path"]) if "path" in attributes else None
        required = "required" not in attributes or findings.flag(attributes["required"]) is not False
        layout = findings.text(attributes["format"]) if "format" in attributes else None
        if layout not in (None, "raw"):
            findings.refuse(attributes["format"], "must be raw, or absent for the format of Compose")
        if path:
            result.append(EnvFile(path, required, layout == "raw", node))
    return result
