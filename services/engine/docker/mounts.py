"""Refusal of mounts that would give an instance another path of the host than the one in its spec.

Sluice may run in a container without access to the host's files, so a short-lived container (the resolver) checks the
paths. The result still holds when the engine mounts them: no service mounts a path that another service can change.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, NotFound

from services.engine.docker.codec import NAME, ROLE, restrictions
from services.engine.docker.gateway_handover import create
from services.engine.port import EngineError, InstanceSpec

RESOLVER_ROLE = "resolver"
MOUNT_REFUSED = "mount_refused"
_RESOLVER_TIMEOUT = 20
"""Seconds that a resolver may run."""
_RESOLVER_MAX_AGE = 2 * _RESOLVER_TIMEOUT
"""Age in seconds after which a resolver is not in use any more."""
_SCRIPT = """
for path; do
  real=$(realpath -e -- "/host$path" 2>&1; printf .)
  [ "$real" = "/host$path
." ] || { printf '%s\\n%s' "$path" "${real%.}"; exit 4; }
done
"""
"""Shell script that checks paths.

A path equals its real path exactly if no part of it is a symbolic link.

This holds for links that lead out of /host and for links within it.
"""


def refuse_mounts(client: docker.APIClient, owner: str, image: str, spec: InstanceSpec) -> None:
    """Raise EngineError `mount_refused` if a mount leads to another host path than it names.

    That is a volume that stands for a host path, or a host path that leads elsewhere.
    """
    for volume in spec.fields.volumes:
        if volume.type == "volume":
            _refuse_bound_volume(client, volume.source or "")
    paths = sorted({volume.host_path for volume in spec.fields.volumes if volume.type == "bind"})
    if paths:
        _refuse_engine_data(client, paths)
        _refuse_links(client, owner, image, paths)


def is_resolver(owner: str, container: str) -> bool:
    """Return True if a container has the name of a resolver of the Sluice called `owner`."""
    return re.fullmatch(re.escape(f"{owner}-{RESOLVER_ROLE}-") + "[0-9a-f]{8}", container) is not None


def _refuse_bound_volume(client: docker.APIClient, name: str) -> None:
    try:
        options: Mapping[str, str] = client.inspect_volume(name).get("Options") or {}
    except NotFound:
        return
    if {"bind", "rbind"} & set(options.get("o", "").split(",")):
        raise EngineError(
            f'The volume "{name}" is not mounted: it is the host path {options.get("device")}; '
            "mount the path itself (type: bind), below SLUICE_HOST_ROOTS",
            reason=MOUNT_REFUSED,
        )


def _refuse_engine_data(client: docker.APIClient, paths: list[str]) -> None:
    root = str(client.info()["DockerRootDir"])
    for path in paths:
        if f"{path}/".startswith(f"{root}/") or f"{root}/".startswith(f"{path}/"):
            raise EngineError(
                f"The host path {path} is not mounted: the engine keeps its own data in {root}; mount another directory",
                reason=MOUNT_REFUSED,
            )


def _refuse_links(client: docker.APIClient, owner: str, image: str, paths: list[str]) -> None:
    try:
        code, output = _resolve(client, owner, image, paths)
    except APIError as error:
        message = f"The host paths {', '.join(paths)} cannot be checked: {error.explanation}"
        raise EngineError(message, reason=MOUNT_REFUSED) from error
    if code == 0:
        return
    path, _, found = output.partition("\n")
    message = "".join(char for char in found.strip() if char.isprintable())[:300]
    link = message.startswith("/")
    real = message.removeprefix("realpath: ").removeprefix("/host")
    cause = f"it is or is below a symbolic link to {real}; mount that path instead" if link else real
    raise EngineError(f"The host path {path} is not mounted: {cause}", reason=MOUNT_REFUSED)


def _resolve(client: docker.APIClient, owner: str, image: str, paths: list[str]) -> tuple[int, str]:
    """Run the script in a container that mounts the top-level host directories of the paths.

    Only the operator can change those directories.
    """
    labels = {NAME: owner, ROLE: RESOLVER_ROLE}
    _remove_left_over(client, labels)
    tops = sorted({f"/{path.split('/')[1]}" for path in paths})
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "Mounts": [{"Type": "bind", "Source": top, "Target": f"/host{top}", "ReadOnly": True} for top in tops],
        "LogConfig": {"Type": "json-file", "Config": {}},
        **restrictions(),
        "CapDrop": ["ALL"],
        "CapAdd": ["DAC_READ_SEARCH"],
    }
    body = {"Image": image, "Entrypoint": ["sh", "-c", _SCRIPT, "sh", *paths], "Labels": labels, "HostConfig": host}
    container_id = create(client, body, f"{owner}-{RESOLVER_ROLE}-{secrets.token_hex(4)}")
    try:
        client.start(container_id)
        code = int(client.wait(container_id, timeout=_RESOLVER_TIMEOUT)["StatusCode"])
        output: bytes = client.logs(container_id, stdout=True, stderr=True) if code else b""
    finally:
        with suppress(NotFound):
            client.remove_container(container_id, v=True, force=True)
    return code, output.decode(errors="replace")


def _remove_left_over(client: docker.APIClient, labels: Mapping[str, str]) -> None:
    """Remove resolvers that a killed Sluice left: those older than any resolver in use."""
    for found in client.containers(all=True, filters={"label": [f"{key}={value}" for key, value in labels.items()]}):
        old = found["Created"] < time.time() - _RESOLVER_MAX_AGE
        if old and any(is_resolver(labels[NAME], name.removeprefix("/")) for name in found["Names"]):
            with suppress(NotFound):
                client.remove_container(found["Id"], v=True, force=True)
