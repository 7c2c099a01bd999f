"""Sluice's own container on one Docker engine, and the removal of everything that one Sluice created."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from json import dumps
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound

from services.engine.docker.client import ClientPool
from services.engine.docker.codec import HASH, INSTANCE, NAME, RESTART_ALWAYS, ROLE, restrictions
from services.engine.docker.gateway_handover import GATEWAY_ROLE, PROBE_ROLE, GatewayNames, create
from services.engine.docker.mounts import RESOLVER_ROLE, is_resolver
from services.engine.infrastructure_port import HOST_SOCKET_ENV, ControlPlaneSpec, ControlPlaneView
from services.engine.port import EngineError

CONTROL_PLANE_ROLE = "sluice"
STOP_TIMEOUT = 30
"""Seconds that a replaced Sluice may take to end; no traffic waits for it."""
_SOCKET = "/var/run/docker.sock"
"""Path of the engine's socket inside the container."""


class DockerControlPlane:
    """The container of the Sluice called `name`, which has that name, on one Docker engine."""

    def __init__(self, name: str, *, base_url: str | None = None) -> None:
        self.name = name
        self._clients = ClientPool(base_url)

    def close(self) -> None:
        self._clients.close()

    async def inspect_control_plane(self, spec: ControlPlaneSpec) -> ControlPlaneView | None:
        return await self._clients.call(lambda client: self._view(client, spec))

    async def ensure_control_plane(self, spec: ControlPlaneSpec) -> None:
        await self._clients.call_long(lambda client: self._ensure(client, spec))

    async def control_plane_log(self, tail: int = 10) -> str:
        return await self._clients.call(lambda client: self._log(client, tail))

    async def gateway_runs(self) -> bool:
        return await self._clients.call(lambda client: any(self._running(client, GATEWAY_ROLE)))

    async def remove_all(self, data: str, files: tuple[str, ...], image: str) -> list[str]:
        return await self._clients.call_long(lambda client: list(self._remove_all(client, data, files, image)))

    # The methods below run on a client's thread.

    def _view(self, client: docker.APIClient, spec: ControlPlaneSpec) -> ControlPlaneView | None:
        body = self._body(client, spec)
        existing = self._container(client)
        if existing is None:
            return None
        state = existing["State"]
        running = bool(state["Running"]) and not state.get("Restarting")
        actual_hash = (existing["Config"].get("Labels") or {}).get(HASH)
        return ControlPlaneView(running, int(existing.get("RestartCount") or 0), actual_hash != body["Labels"][HASH])

    def _ensure(self, client: docker.APIClient, spec: ControlPlaneSpec) -> None:
        body = self._body(client, spec)
        view = self._view(client, spec)
        if view is not None and view.outdated:
            client.stop(self.name, timeout=STOP_TIMEOUT)
            client.remove_container(self.name, v=True, force=True)
            view = None
        if view is None:
            create(client, body, self.name)
        if view is None or not view.running:
            client.start(self.name)

    def _body(self, client: docker.APIClient, spec: ControlPlaneSpec) -> dict[str, Any]:
        inspect: Any = client.inspect_image
        try:
            image_id = inspect(spec.image)["Id"]
        except ImageNotFound:
            raise EngineError(
                f'Sluice\'s image "{spec.image}" not found; build it with "make images", or set SLUICE_IMAGE'
            ) from None
        binds = {spec.data: f"{spec.data}:rw", spec.socket: f"{_SOCKET}:rw"}
        binds |= {path: f"{inside}:ro" for path, inside in spec.files.items()}
        body: dict[str, Any] = {
            "Image": spec.image,
            "Cmd": ["serve"],
            "Env": [f"{key}={value}" for key, value in sorted({**spec.environment, HOST_SOCKET_ENV: spec.socket}.items())],
            "Labels": {NAME: self.name, ROLE: CONTROL_PLANE_ROLE},
            "HostConfig": {
                "NetworkMode": "host",
                # Not `unless-stopped`: after the engine was killed, such a container stays down.
                "RestartPolicy": RESTART_ALWAYS,
                "Binds": [f"{path}:{options}" for path, options in binds.items()],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
                **restrictions(),
            },
        }
        body["Labels"][HASH] = sha256(dumps([body, image_id], sort_keys=True).encode()).hexdigest()[:16]
        return body

    def _container(self, client: docker.APIClient) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = client.inspect_container(self.name)
        except NotFound:
            return None
        labels = found["Config"].get("Labels") or {}
        if found["Name"] != f"/{self.name}" or labels.get(NAME) != self.name or labels.get(ROLE) != CONTROL_PLANE_ROLE:
            raise EngineError(
                f'A container called "{self.name}" already exists and is not from Sluice; it is left alone. '
                "Remove it, or choose another SLUICE_NAME"
            )
        return found

    def _data(self, client: docker.APIClient) -> str | None:
        existing = self._container(client)
        variables = existing["Config"].get("Env") or [] if existing else []
        return next((value for key, _, value in (line.partition("=") for line in variables) if key == "SLUICE_DATA"), None)

    def _log(self, client: docker.APIClient, tail: int) -> str:
        if self._container(client) is None:
            return ""
        text: bytes = client.logs(self.name, stdout=True, stderr=True, tail=tail)
        return text.decode(errors="replace")

    def _running(self, client: docker.APIClient, role: str) -> Iterator[str]:
        for container in self._own_containers(client):
            if container["Labels"].get(ROLE) == role and container["State"] == "running":
                yield container["Id"]

    def _own_containers(self, client: docker.APIClient) -> Iterator[dict[str, Any]]:
        """Yield this Sluice's containers: label and name must agree.

        `docker commit` copies labels into images, and so into containers that Sluice did not create.
        """
        for container in client.containers(all=True, filters={"label": f"{NAME}={self.name}"}):
            labels = container["Labels"]
            gateways = GatewayNames(self.name)
            names = {self.name: CONTROL_PLANE_ROLE, gateways.probe: PROBE_ROLE}
            names |= dict.fromkeys((gateways.present, gateways.next, gateways.predecessor(container["Id"])), GATEWAY_ROLE)
            container_names = [name.removeprefix("/") for name in container["Names"]]
            names |= dict.fromkeys((name for name in container_names if is_resolver(self.name, name)), RESOLVER_ROLE)
            role_fits = any(names.get(name) == labels.get(ROLE, "") for name in container_names)
            if role_fits or (INSTANCE in labels and f"{self.name}-{labels[INSTANCE]}" in container_names):
                yield container

    def _remove_all(self, client: docker.APIClient, data: str, files: tuple[str, ...], image: str) -> Iterator[str]:
        data = self._data(client) or data
        # Sluice's container goes first, because it would recreate the objects that it misses.
        own = sorted(self._own_containers(client), key=lambda found: found["Labels"].get(ROLE) != CONTROL_PLANE_ROLE)
        for container in own:
            with suppress(NotFound):
                client.remove_container(container["Id"], v=True, force=True)
            yield f"container {container['Names'][0].removeprefix('/')}"
        for network in client.networks(filters={"label": f"{NAME}={self.name}"}):
            if network["Name"] == self.name:
                client.remove_network(network["Id"])
                yield f"network {self.name}"
        for volume in client.volumes(filters={"label": f"{NAME}={self.name}"})["Volumes"] or []:
            client.remove_volume(volume["Name"])
            yield f"volume {volume['Name']}"
        if self._remove_files(client, data, files, image):
            yield f"data in {data}"

    def _remove_files(self, client: docker.APIClient, data: str, files: tuple[str, ...], image: str) -> bool:
        """Remove the files in a container, because root owns them. Return True if the directory existed."""
        parent, _, directory = data.rpartition("/")
        script = 'cd "/parent/$0" 2>/dev/null || exit 3; rm -rf -- "$@"; cd /; rmdir "/parent/$0" 2>/dev/null || true'
        container_id = create(
            client,
            {
                "Image": image,
                "Entrypoint": ["sh", "-c", script, directory],
                "Cmd": list(files),
                "Labels": {NAME: self.name, ROLE: "broom"},
                "HostConfig": {"Binds": [f"{parent or '/'}:/parent"], "NetworkMode": "none", **restrictions()},
            },
        )
        try:
            client.start(container_id)
            code = client.wait(container_id)["StatusCode"]
        except APIError as error:
            raise EngineError(f"The data in {data} could not be removed: {error.explanation}") from error
        finally:
            client.remove_container(container_id, v=True, force=True)
        if code not in (0, 3):
            raise EngineError(f"The data in {data} could not be removed")
        return bool(code == 0)
