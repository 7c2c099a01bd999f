"""Networks: the services of a file that can call each other by name.

Names of Sluice's services lead through the gateway, all others through Compose's own network.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.compose.document import Node
from services.compose.findings import Findings
from services.compose.keys import JOINED, TOP_NETWORK
from services.compose.volumes import engine_name

DEFAULT = "default"


class Networks:
    """Networks of a file. `declared`: its top-level networks."""

    def __init__(self, findings: Findings, project: str, declared: Mapping[str, Node]) -> None:
        for node in declared.values():
            findings.keys(node, TOP_NETWORK)
            driver = findings.mapping(node).get("driver")
            if driver is not None and driver.value not in (None, "bridge"):
                findings.warn(driver, "ignored: Sluice's instances are in Sluice's network")
        self._findings = findings
        self._project = project
        self._declared = declared

    def of(self, service: Node, taken: bool) -> tuple[str, ...]:
        """Return the networks of a service, by their names in the file. With `taken`, report errors in them."""
        listed = service.value.get("networks") if isinstance(service.value, dict) else None
        if listed is None or listed.value is None:
            return (DEFAULT,)
        if not isinstance(listed.value, dict | list):
            return tuple(name for name in (self._findings.text(listed),) if name)
        if isinstance(listed.value, dict):
            names = list(listed.value)
            for node in listed.value.values() if taken else ():
                self._findings.keys(node, JOINED)
        else:
            names = [node.text for node in listed.value]
        for name in names if taken else ():
            if name != DEFAULT and name not in self._declared:
                self._findings.refuse(listed, f'the network "{name[:100]}" is not declared under networks:')
        return tuple(names)

    def joined(self, networks: tuple[str, ...], others: set[str]) -> list[str]:
        """Return the engine's names of the networks to join.

        Those are `external` networks and the networks shared with services that Sluice leaves alone (`others`).
        """
        return [
            engine_name(self._findings, self._project, name, self._declared.get(name) or Node(name, 1, None))
            for name in networks
            if name in others or self._is_external(name)
        ]

    def _is_external(self, name: str) -> bool:
        declared = self._declared.get(name)
        attributes = declared.value if declared is not None and isinstance(declared.value, dict) else {}
        external = attributes.get("external")
        return external is not None and external.value not in (None, False)
