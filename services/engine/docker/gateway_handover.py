"""Steps of a handover from one gateway container to another on a Docker engine.

Each function runs on a client's thread. Each can be called again after a crash between any two of its engine calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, NotFound

from services.engine.docker.codec import (
    NAME,
    RESTART_ALWAYS,
    RESTART_NEVER,
    ROLE,
    image_labels,
    mask_image_labels,
    restrictions,
)
from services.engine.port import EngineError

GATEWAY_ROLE, PROBE_ROLE = "gateway", "feeler"
Found = Mapping[str, Any]
_TIMED_OUT = 124
"""Exit code of the command `timeout` if the time is over."""


class GatewayNames:
    """Names of the gateway containers of the Sluice called `name`."""

    def __init__(self, name: str) -> None:
        self.owner = name
        self.present = f"{name}-gateway"
        self.next = f"{name}-gateway-next"
        self.probe = f"{name}-feeler"

    def predecessor(self, id: str) -> str:
        """Return the name of the predecessor with this container id."""
        return f"{self.present}-{id[:12]}"

    def match(self, found: Found, name: str) -> bool:
        """Return True if the container has exactly this name and the labels of this Sluice's gateway."""
        labels = found["Config"].get("Labels") or {}
        return found["Name"] == f"/{name}" and labels.get(NAME) == self.owner and labels.get(ROLE) == GATEWAY_ROLE


def inspect(client: docker.APIClient, names: GatewayNames, name: str) -> Found | None:
    """Return the container's inspection, None if there is none. Raises EngineError if it is not Sluice's."""
    try:
        found: Found = client.inspect_container(name)
    except NotFound:
        return None
    if not names.match(found, name):
        raise EngineError(
            f'A container called "{name}" already exists and is not from Sluice; it is left alone. '
            "Remove it, or choose another SLUICE_NAME"
        )
    return found


def predecessors(client: docker.APIClient, names: GatewayNames) -> list[Found]:
    """Return the inspections of all predecessors."""
    labelled = client.containers(all=True, filters={"label": [f"{NAME}={names.owner}", f"{ROLE}={GATEWAY_ROLE}"]})
    found = []
    for container in labelled:
        if f"/{names.predecessor(container['Id'])}" in container["Names"]:
            with suppress(NotFound):
                found.append(client.inspect_container(container["Id"]))
    return found


def create(client: docker.APIClient, body: Found, name: str | None = None) -> str:
    """Create a container of Sluice's own and return its id. Its image cannot add labels of Sluice's."""
    labels = mask_image_labels(body["Labels"], image_labels(client, body["Image"]))
    make: Any = client.create_container_from_config
    return str(make({**body, "Labels": labels}, name)["Id"])


def start_next(client: docker.APIClient, names: GatewayNames, body: Mapping[str, Any], sockets: str) -> Found:
    remove_next(client, names)
    host = {**body["HostConfig"], "RestartPolicy": RESTART_NEVER}
    create(client, {**body, "Cmd": ["-x", sockets], "HostConfig": host}, names.next)
    client.start(names.next)
    found: Found = client.inspect_container(names.next)
    return found


def remove_next(client: docker.APIClient, names: GatewayNames) -> None:
    existing = inspect(client, names, names.next)
    if existing is not None:
        with suppress(NotFound):
            client.remove_container(existing["Id"], v=True, force=True)


def promote(client: docker.APIClient, names: GatewayNames) -> None:
    new, present = inspect(client, names, names.next), inspect(client, names, names.present)
    if new is None:
        return
    client.update_container(new["Id"], restart_policy=RESTART_ALWAYS)
    if present is not None:
        client.update_container(present["Id"], restart_policy=RESTART_NEVER)
        client.rename(present["Id"], names.predecessor(present["Id"]))
    client.rename(new["Id"], names.present)


def drain(client: docker.APIClient, names: GatewayNames, id: str) -> None:
    found = inspect(client, names, names.predecessor(id))
    if found is None:
        return
    client.update_container(found["Id"], restart_policy=RESTART_NEVER)
    if found["State"]["Running"]:
        try:
            client.kill(found["Id"], "SIGUSR1")
        except APIError as error:
            if error.status_code != 409:  # the container has ended by itself
                raise


def remove_ended(client: docker.APIClient, names: GatewayNames, id: str) -> None:
    found = inspect(client, names, names.predecessor(id))
    if found is not None and not found["State"]["Running"]:
        with suppress(NotFound):
            client.remove_container(found["Id"], v=True)


def check_reachable(client: docker.APIClient, names: GatewayNames, image: str, address: str, port: int) -> str | None:
    """Open a connection from a container on the instances' network.

    Return None on success, otherwise the cause.
    """
    code, output = _run_probe(client, names, image, names.owner, 'exec 3<>"/dev/tcp/$0/$1"', address, port)
    if code == 0:
        return None
    if code == _TIMED_OUT:
        return "no answer within 3 s"
    return output.splitlines()[-1] if output else f"exit code {code}"


def answers_outside(client: docker.APIClient, names: GatewayNames, image: str, address: str, port: int) -> bool:
    """Send an HTTP request from a container on the engine's default network.

    Return True if it is answered.
    """
    request = 'exec 3<>"/dev/tcp/$0/$1" && printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3 && read -r line <&3'
    code, _ = _run_probe(client, names, image, "bridge", request, address, port)
    return code == 0


def _run_probe(
    client: docker.APIClient, names: GatewayNames, image: str, network: str, script: str, address: str, port: int
) -> tuple[int, str]:
    """Run a script in a container of the gateway's image and remove the container.

    Return exit code and end of output.
    """
    with suppress(NotFound):
        labels = client.inspect_container(names.probe)["Config"].get("Labels") or {}
        if labels.get(NAME) == names.owner and labels.get(ROLE) == PROBE_ROLE:
            client.remove_container(names.probe, v=True, force=True)
    container_id = create(
        client,
        {
            "Image": image,
            "Entrypoint": ["timeout", "3", "bash", "-c", script, address, str(port)],
            "Labels": {NAME: names.owner, ROLE: PROBE_ROLE},
            "HostConfig": {
                "NetworkMode": network,
                "LogConfig": {"Type": "json-file", "Config": {}},
                **restrictions(),
            },
        },
        names.probe,
    )
    try:
        client.start(container_id)
        code = int(client.wait(container_id, timeout=20)["StatusCode"])
        output: bytes = client.logs(container_id, stdout=True, stderr=True, tail=3) if code else b""
    finally:
        with suppress(NotFound):
            client.remove_container(container_id, v=True, force=True)
    return code, output.decode(errors="replace").strip()
