"""Conversion of `ports` and `expose` to the one port that receives requests.

All other ports are reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.compose.document import Node
from services.compose.findings import Findings
from services.compose.keys import PORT

SHORT_PORT = re.compile(
    r"(?:(?:(?P<ip>\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?(?P<published>[0-9]*(?:-[0-9]+)?):)?"
    r"(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>[a-z]+))?"
)
"""The short form of a port, such as `127.0.0.1:8080:80/tcp`."""
_APP_PROTOCOLS = (None, "tcp", "http", "http1", "http/1.1", "ws")
_CHOOSE_PORT = "set the HTTP port: x-sluice: {port: N}, or {port: null} if there is none"


@dataclass(frozen=True)
class PublishedPort:
    """A port of the container, and the host port under which Compose would publish it."""

    target: int
    published: str | None
    node: Node


def port_of(findings: Findings, keys: dict[str, Node], overrides: dict[str, object]) -> tuple[int, Node] | None:
    """Return the port and its node, None if the file names none.

    `overrides`: the service's x-sluice, whose port and routes take precedence.
    """
    chosen, routed = "port" in overrides, bool(overrides.get("routes"))
    ports = list(_ports(findings, keys["ports"], chosen)) if "ports" in keys else []
    for port in ports:
        if port.published and not routed:
            why = f"port {port.published} is not published on the host: requests come through the gateway"
            findings.warn(port.node, f"{why}, by routes: x-sluice: {{routes: [{{host: …}}]}}")
    if not ports and "expose" in keys:
        ports = [port for node in findings.items(keys["expose"]) for port in _short(findings, node, chosen)]
    targets = sorted({port.target for port in ports})
    if chosen or not targets:
        return None
    if len(targets) > 1:
        numbers = ", ".join(map(str, targets))
        findings.refuse(keys.get("ports") or keys["expose"], f"several ports ({numbers}); {_CHOOSE_PORT}")
    return targets[0], ports[0].node


def _ports(findings: Findings, node: Node, chosen: bool) -> Iterator[PublishedPort]:
    for item in findings.items(node):
        if not isinstance(item.value, dict):
            yield from _short(findings, item, chosen)
            continue
        keys = findings.keys(item, PORT)
        target = findings.whole(keys["target"]) if "target" in keys else None
        if "target" not in keys:
            findings.refuse(item, "needs a target")
        published = findings.text(keys["published"]) if "published" in keys else None
        protocol = findings.text(keys["protocol"]) if "protocol" in keys else "tcp"
        if "app_protocol" in keys and not chosen and findings.text(keys["app_protocol"]) not in _APP_PROTOCOLS:
            findings.refuse(keys["app_protocol"], f"the gateway speaks HTTP/1.1 to instances; {_CHOOSE_PORT}")
        if target is not None and _is_routable(findings, item, protocol, chosen):
            yield PublishedPort(target, published, item)


def _short(findings: Findings, node: Node, chosen: bool) -> Iterator[PublishedPort]:
    text = findings.text(node)
    if text is None:
        return
    match = SHORT_PORT.fullmatch(text)
    if match is None:
        findings.refuse(node, f'{text[:60]!r} is not a port; use the form "8080:80"')
    elif "-" in match["target"] and not chosen:
        findings.refuse(node, f"port ranges are not supported; {_CHOOSE_PORT}")
    elif "-" not in match["target"] and _is_routable(findings, node, match["protocol"], chosen):
        yield PublishedPort(int(match["target"]), match["published"] or None, node)


def _is_routable(findings: Findings, node: Node, protocol: str | None, chosen: bool) -> bool:
    """Return True if the gateway can serve the protocol.

    If x-sluice names the port, other protocols are silently left unpublished.
    """
    if protocol in (None, "tcp"):
        return True
    if not chosen:
        findings.refuse(node, f"{protocol} is not supported by the gateway; {_CHOOSE_PORT}")
    return False
