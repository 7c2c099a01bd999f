"""Infrastructure on one Docker engine: a bridge network with its own subnet, and the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from ipaddress import IPv4Network, ip_network
from json import dumps
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.types import IPAMConfig, IPAMPool

from services.engine.docker import gateway_handover
from services.engine.docker.client import ClientPool
from services.engine.docker.codec import HASH, NAME, RESTART_ALWAYS, ROLE, restrictions
from services.engine.docker.gateway_handover import GATEWAY_ROLE, GatewayNames
from services.engine.docker.subnets import automatic_part, free_subnets, host_routes
from services.engine.infrastructure_port import Gateways, GatewaySpec, GatewayView, NetworkInfo
from services.engine.port import EngineError

GATEWAY_DIRECTORY = "/run/gateway"
_OVERLAP_ERRORS = ("overlaps", "already in use", "conflicts with")
_MAX_SUBNET_ATTEMPTS = 8


class DockerInfrastructure:
    """Infrastructure of the Sluice `name`: the network of that name and the container `<name>-gateway`."""

    def __init__(self, name: str, *, base_url: str | None = None, clients: ClientPool | None = None) -> None:
        self.name = name
        self._names = GatewayNames(name)
        self.gateway = self._names.present
        self.clients = clients or ClientPool(base_url)

    def close(self) -> None:
        self.clients.close()

    async def ensure_network(self, subnet: str | None, previous: str | None = None) -> NetworkInfo:
        return await self.clients.call(lambda client: self._ensure_network(client, subnet, previous))

    async def inspect_network(self) -> NetworkInfo | None:
        return await self.clients.call(self._inspect_network)

    async def ensure_gateway(self, spec: GatewaySpec) -> GatewayView:
        return await self.clients.call(lambda client: self._ensure_gateway(client, spec))

    async def restart_gateway(self) -> None:
        await self.clients.call(self._restart_gateway)

    async def inspect_gateway(self) -> GatewayView | None:
        return await self.clients.call(self._inspect_gateway)

    async def gateway_log(self, tail: int = 50) -> str:
        return await self.clients.call(lambda client: self._gateway_log(client, tail))

    async def inspect_gateways(self, spec: GatewaySpec) -> Gateways:
        return await self.clients.call(lambda client: self._inspect_gateways(client, spec))

    async def start_next_gateway(self, spec: GatewaySpec, sockets: str) -> GatewayView:
        return await self.clients.call(lambda client: self._start_next(client, spec, sockets))

    async def next_gateway_log(self, tail: int = 50) -> str:
        return await self.clients.call(lambda client: self._log_of(client, self._names.next, tail))

    async def remove_next_gateway(self) -> None:
        await self.clients.call(lambda client: gateway_handover.remove_next(client, self._names))

    async def promote_next_gateway(self) -> None:
        await self.clients.call(lambda client: gateway_handover.promote(client, self._names))

    async def drain_gateway(self, id: str) -> None:
        await self.clients.call(lambda client: gateway_handover.drain(client, self._names, id))

    async def remove_gateway(self, id: str) -> None:
        await self.clients.call(lambda client: gateway_handover.remove_ended(client, self._names, id))

    async def check_reachable(self, image: str, address: str, port: int) -> str | None:
        return await self.clients.call(lambda client: self._check_reachable(client, image, address, port))

    async def answers_outside(self, image: str, address: str, port: int) -> bool:
        return await self.clients.call(lambda client: self._answers_outside(client, image, address, port))

    # The methods below run on a client's thread.

    def _ensure_network(self, client: docker.APIClient, subnet: str | None, previous: str | None) -> NetworkInfo:
        requested = _parse(subnet) if subnet else None
        existing = self._network(client)
        if existing is not None:
            return self._adopt_network(existing, requested)
        taken = _subnets(client.networks())
        candidates = [requested] if requested else free_subnets([*taken, *host_routes()], _MAX_SUBNET_ATTEMPTS)
        if previous is not None and requested is None:
            candidates = [_parse(previous), *candidates]
        error_text = "no free subnet"
        for candidate in candidates:
            try:
                network_id = self._create_network(client, candidate)
            except APIError as error:
                error_text = str(error.explanation)
                if error.status_code == 409 and (existing := self._network(client)):
                    return self._adopt_network(existing, requested)  # created concurrently by another caller
                if not any(pattern in error_text.lower() for pattern in _OVERLAP_ERRORS):
                    raise
            else:
                return self._settle_network(client, network_id, requested)
        raise EngineError(f'The network "{self.name}" cannot be created: {error_text}. Choose a subnet with SLUICE_SUBNET')

    def _network(self, client: docker.APIClient) -> Mapping[str, Any] | None:
        """Return the oldest network with exactly this name.

        The engine's own filter also matches parts of names.
        """
        found = [network for network in client.networks(names=[self.name]) if network["Name"] == self.name]
        return min(found, key=lambda network: (network["Created"], network["Id"]), default=None)

    def _inspect_network(self, client: docker.APIClient) -> NetworkInfo | None:
        existing = self._network(client)
        return self._adopt_network(existing, None) if existing is not None else None

    def _settle_network(self, client: docker.APIClient, network_id: str, requested: IPv4Network | None) -> NetworkInfo:
        """Resolve a race: old engines create two networks for two concurrent requests. The older one stays."""
        oldest = self._network(client)
        if oldest is None:
            raise EngineError(f'The network "{self.name}" disappeared during its creation', transient=True)
        if oldest["Id"] != network_id:
            client.remove_network(network_id)
        return self._adopt_network(oldest, requested)

    def _adopt_network(self, existing: Mapping[str, Any], requested: IPv4Network | None) -> NetworkInfo:
        subject = f'A network called "{self.name}"'
        if (existing.get("Labels") or {}).get(NAME) != self.name:
            raise EngineError(
                f"{subject} already exists and is not from Sluice; it is left alone. "
                "Remove it, or choose another SLUICE_NAME"
            )
        pools = [pool for pool in (existing.get("IPAM") or {}).get("Config") or [] if "." in pool.get("Subnet", "")]
        if existing.get("Driver") != "bridge" or len(pools) != 1 or not pools[0].get("Gateway"):
            raise EngineError(f"{subject} exists, but is not a bridge with one IPv4 subnet and a gateway address")
        if requested is not None and _parse(pools[0]["Subnet"]) != requested:
            raise EngineError(
                f"{subject} exists with the subnet {pools[0]['Subnet']}, but SLUICE_SUBNET is {requested}. "
                "Remove the network or the setting"
            )
        return NetworkInfo(pools[0]["Subnet"], pools[0]["Gateway"].partition("/")[0])

    def _create_network(self, client: docker.APIClient, subnet: IPv4Network) -> str:
        pool = IPAMPool(subnet=str(subnet), gateway=str(next(subnet.hosts())), iprange=str(automatic_part(subnet)))
        created = client.create_network(
            self.name,
            driver="bridge",
            ipam=IPAMConfig(pool_configs=[pool]),
            check_duplicate=True,
            labels={NAME: self.name},
        )
        return str(created["Id"])

    def _ensure_gateway(self, client: docker.APIClient, spec: GatewaySpec) -> GatewayView:
        image = self._image(client, spec.image)
        body = self._body(spec, image)
        existing = self._container(client)
        if existing is not None and _view(existing, body).running:
            if _mounted(existing) != spec.directory:
                raise EngineError(
                    f'The gateway "{self.gateway}" runs with the directory {_mounted(existing)} '
                    f"instead of {spec.directory}. "
                    "Stop it, correct SLUICE_DATA, or choose another SLUICE_NAME"
                )
            return _view(existing, body)
        if existing is not None and (_view(existing, body).outdated or existing["State"].get("Restarting")):
            # The engine would restart a container that keeps failing after ever longer delays only.
            client.remove_container(existing["Id"], v=True, force=True)
            existing = None
        if existing is None:
            gateway_handover.create(client, body, self.gateway)
        client.start(self.gateway)
        return _view(client.inspect_container(self.gateway), body)

    def _restart_gateway(self, client: docker.APIClient) -> None:
        existing = self._container(client)
        if existing is None:
            return
        if existing["State"].get("Paused"):
            client.unpause(existing["Id"])
        client.restart(existing["Id"], timeout=0)

    def _body(self, spec: GatewaySpec, image_id: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "Image": spec.image,
            "Labels": {NAME: self.name, ROLE: GATEWAY_ROLE},
            "HostConfig": {
                "NetworkMode": "host",
                "RestartPolicy": RESTART_ALWAYS,
                "Mounts": [{"Type": "bind", "Source": spec.directory, "Target": GATEWAY_DIRECTORY}],
                "Ulimits": [{"Name": "nofile", "Soft": spec.open_files, "Hard": spec.open_files}],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
                **restrictions(),
            },
        }
        body["Labels"][HASH] = sha256(dumps([body, image_id], sort_keys=True).encode()).hexdigest()[:16]
        return body

    def _image(self, client: docker.APIClient, reference: str) -> str:
        inspect: Any = client.inspect_image
        try:
            return str(inspect(reference)["Id"])
        except ImageNotFound:
            raise EngineError(f'The gateway\'s image "{reference}" not found; build it with "make images"') from None

    def _container(self, client: docker.APIClient) -> Mapping[str, Any] | None:
        """Return the gateway's container. Raises EngineError if a container with its name is not Sluice's."""
        return gateway_handover.inspect(client, self._names, self.gateway)

    def _inspect_gateway(self, client: docker.APIClient) -> GatewayView | None:
        existing = self._container(client)
        return _view(existing, None) if existing else None

    def _inspect_gateways(self, client: docker.APIClient, spec: GatewaySpec) -> Gateways:
        existing, successor = self._container(client), gateway_handover.inspect(client, self._names, self._names.next)
        return Gateways(
            current=_view(existing, self._body(spec, self._image(client, spec.image))) if existing else None,
            successor=_view(successor, None) if successor else None,
            predecessors=tuple(_view(found, None) for found in gateway_handover.predecessors(client, self._names)),
        )

    def _start_next(self, client: docker.APIClient, spec: GatewaySpec, sockets: str) -> GatewayView:
        body = self._body(spec, self._image(client, spec.image))
        return _view(gateway_handover.start_next(client, self._names, body, sockets), body)

    def _gateway_log(self, client: docker.APIClient, tail: int) -> str:
        return self._log_of(client, self.gateway, tail)

    def _log_of(self, client: docker.APIClient, name: str, tail: int) -> str:
        if gateway_handover.inspect(client, self._names, name) is None:
            return ""
        text: bytes = client.logs(name, stdout=True, stderr=True, tail=tail)
        return text.decode(errors="replace")

    def _check_reachable(self, client: docker.APIClient, image: str, address: str, port: int) -> str | None:
        self._image(client, image)
        return gateway_handover.check_reachable(client, self._names, image, address, port)

    def _answers_outside(self, client: docker.APIClient, image: str, address: str, port: int) -> bool:
        self._image(client, image)
        return gateway_handover.answers_outside(client, self._names, image, address, port)


def _view(found: Mapping[str, Any], body: Mapping[str, Any] | None) -> GatewayView:
    state = found["State"]
    running = bool(state["Running"]) and not state.get("Restarting")
    actual_hash = (found["Config"].get("Labels") or {}).get(HASH)
    return GatewayView(
        container_id=found["Id"],
        running=running,
        restarts=int(found.get("RestartCount") or 0),
        exit_code=None if running else state["ExitCode"],
        outdated=body is not None and actual_hash != body["Labels"][HASH],
        restarting=bool(state.get("Restarting")),
        image=str(found["Config"]["Image"]),
        open_files=_open_files(found),
    )


def _open_files(found: Mapping[str, Any]) -> int | None:
    limits = (found.get("HostConfig") or {}).get("Ulimits") or []
    return next((int(limit["Hard"]) for limit in limits if limit["Name"] == "nofile"), None)


def _mounted(found: Mapping[str, Any]) -> str | None:
    """Return the host directory that the container mounts as /run/gateway."""
    mounts = (mount for mount in found.get("Mounts") or [] if mount["Destination"] == GATEWAY_DIRECTORY)
    return next((str(mount["Source"]) for mount in mounts), None)


def _subnets(networks: list[dict[str, Any]]) -> list[IPv4Network]:
    pools = (pool for network in networks for pool in (network.get("IPAM") or {}).get("Config") or [])
    return [_parse(pool["Subnet"]) for pool in pools if "." in pool.get("Subnet", "")]


def _parse(subnet: str) -> IPv4Network:
    try:
        network = ip_network(subnet, strict=False)
    except ValueError:
        network = None
    if not isinstance(network, IPv4Network) or network.prefixlen > 28:
        raise EngineError(f'"{subnet}" is not an IPv4 subnet large enough for instances, such as 10.203.0.0/22')
    return network
