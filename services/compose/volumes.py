"""Conversion of a service's `volumes` and `tmpfs` to the spec.

Volumes get the names that Compose gives them on the engine.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from services.compose.document import Node
from services.compose.findings import Findings
from services.compose.keys import BIND, NAMED_VOLUME, TMPFS, TOP_VOLUME, VOLUME

_IGNORED_OPTIONS = {
    **dict.fromkeys(("z", "Z"), "SELinux labels are not changed"),
    **dict.fromkeys(("cached", "delegated", "consistent"), ""),
}
"""Options of the short form that are accepted without effect, and the warning for each."""


def engine_name(findings: Findings, project: str, name: str, declared: Node) -> str:
    """Return the name of a volume or network on the engine: its own, or prefixed with the project's."""
    attributes = findings.mapping(declared)
    own_name, external = attributes.get("name"), attributes.get("external")
    if own_name is not None and own_name.value is not None:
        return findings.text(own_name) or ""
    if isinstance(external, Node) and isinstance(external.value, dict) and "name" in external.value:
        return findings.text(external.value["name"]) or ""
    return name if external is not None and external.value is True else f"{project}_{name}"


class Volumes:
    """Volumes of a file.

    `declared`: its top-level volumes; `directory`: the client's directory, the base of relative paths, if known.
    """

    def __init__(self, findings: Findings, project: str, declared: Mapping[str, Node], directory: str | None) -> None:
        self._findings = findings
        self._project = project
        self._declared = declared
        self._attributes = {name: findings.keys(node, TOP_VOLUME) for name, node in declared.items()}
        self._directory = directory

    def of(self, keys: dict[str, Node]) -> tuple[list[dict[str, Any]], list[Node]]:
        """Return a service's volumes for the spec, and the node of each."""
        mounts: list[dict[str, Any]] = []
        places: list[Node] = []
        for node in self._findings.items(keys["volumes"]) if "volumes" in keys else ():
            mount = self._long(node) if isinstance(node.value, dict) else self._short(node)
            if mount is not None:
                mounts.append(mount)
                places.append(node)
        tmpfs = keys.get("tmpfs")
        for node in () if tmpfs is None else tmpfs.value if isinstance(tmpfs.value, list) else (tmpfs,):
            target = self._findings.text(node)
            if target is not None and ":" in target:
                self._findings.refuse(node, "options of a tmpfs are not supported")
            elif target is not None:
                mounts.append({"type": "tmpfs", "target": target})
                places.append(node)
        return mounts, places

    def _short(self, node: Node) -> dict[str, Any] | None:
        text = self._findings.text(node)
        if text is None:
            return None
        source, *parts = text.split(":")
        if not parts:
            self._findings.refuse(node, "an anonymous volume is removed with its container; name the volume")
            return None
        mount: dict[str, Any] = {"target": parts[0]}
        for option in ",".join(parts[1:]).split(",") if parts[1:] else ():
            if option in _IGNORED_OPTIONS:
                if _IGNORED_OPTIONS[option]:
                    self._findings.warn(node, _IGNORED_OPTIONS[option])
            elif option == "ro":
                mount["read_only"] = True
            elif option != "rw":
                self._findings.refuse(node, f'the option "{option[:60]}" is not supported')
        return self._with_source(node, source, mount, bind=source.startswith(("/", ".", "~")))

    def _long(self, node: Node) -> dict[str, Any] | None:
        findings = self._findings
        keys = findings.keys(node, VOLUME)
        for name, known in (("bind", BIND), ("volume", NAMED_VOLUME), ("tmpfs", TMPFS)):
            if name in keys:
                findings.keys(keys[name], known)
        kind = findings.text(keys["type"]) if "type" in keys else "volume"
        if kind not in ("volume", "bind", "tmpfs"):
            findings.refuse(keys.get("type", node), "must be volume, bind or tmpfs")
            return None
        if "target" not in keys:
            findings.refuse(node, "needs a target")
            return None
        mount: dict[str, Any] = {"target": findings.text(keys["target"])}
        if "read_only" in keys:
            mount["read_only"] = findings.flag(keys["read_only"])
        if "x-sluice" in keys:
            mount.update(findings.plain(keys["x-sluice"]) if isinstance(keys["x-sluice"].value, dict) else {})
        if kind == "tmpfs":
            return {"type": "tmpfs", **mount}
        if "source" not in keys:
            findings.refuse(node, "an anonymous volume is removed with its container; set a source")
            return None
        source = findings.text(keys["source"])
        return None if source is None else self._with_source(keys["source"], source, mount, bind=kind == "bind")

    def _with_source(self, node: Node, source: str, mount: dict[str, Any], *, bind: bool) -> dict[str, Any] | None:
        if bind:
            path = self._path(node, source)
            return None if path is None else {"type": "bind", "source": path, **mount}
        declared = self._declared.get(source)
        if declared is None:
            self._findings.refuse(node, f'the volume "{source[:100]}" is not declared under volumes:')
            return None
        attributes = self._attributes[source]
        for name in ("driver", "driver_opts") if "external" not in attributes else ():
            if name in attributes and attributes[name].value not in ("local", {}):
                why = f'is not supported (for {node.path}): create the volume and set "external: true"'
                self._findings.refuse(attributes[name], why)
        return {"type": "volume", "source": engine_name(self._findings, self._project, source, declared), **mount}

    def _path(self, node: Node, source: str) -> str | None:
        """Return the absolute path on the engine's host, None if refused."""
        if source.startswith("~"):
            self._findings.refuse(node, 'write the complete path: "~" differs between hosts')
            return None
        if not source.startswith("/") and self._directory is None:
            self._findings.refuse(node, "relative path without a base; set ?directory=, or use `sluice deploy -f`")
            return None
        return posixpath.normpath(posixpath.join(self._directory or "/", source))
