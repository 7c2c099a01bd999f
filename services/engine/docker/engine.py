"""The engine port on one Docker engine, 20.10 or newer; the API version is negotiated."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.utils import parse_repository_tag

from services.engine.docker.build import build
from services.engine.docker.client import ClientPool, translate_errors
from services.engine.docker.codec import (
    HASH,
    INSTANCE,
    NAME,
    RESTART_ALWAYS,
    RESTART_NEVER,
    SERVICE,
    container_config,
    image_labels,
    is_reserved,
    labels_of,
    parse_container,
    parse_instance,
    state_signature,
)
from services.engine.docker.events import EventWatcher, InspectCache
from services.engine.docker.images import Images
from services.engine.docker.mounts import refuse_mounts
from services.engine.docker.prune import prune
from services.engine.docker.stats import usage_of
from services.engine.docker.streams import StreamCancel, iterate_in_thread, running_start
from services.engine.port import (
    IMAGE_GONE,
    BuildSpec,
    ContainerView,
    EngineError,
    EngineEvent,
    ImageInfo,
    InstanceSpec,
    Usage,
)

MAX_INSTANCES = 900
"""Maximum number of instances.

A bridge takes about 1,000 ports (a kernel limit); the rest is for other containers.
"""
MAX_LINE_BYTES = 65_536
"""Bytes after which a log line without an end is passed on in parts."""
MAX_LOG_BYTES = 8 * 1024 * 1024
"""Maximum number of bytes of a log that are read in one call: the last ones."""
_MAX_CONCURRENT_INSPECTIONS = 8
_COMPOSE_LABELS = "com.docker.compose"
"""Prefix of the labels that Compose sets."""


class DockerEngine:
    """Engine that runs instances as containers of the Docker engine at `base_url`.

    - `base_url`: None means the engine that the environment names.
    - `name`: the name of this Sluice. Other containers, even with similar names or labels, are neither observed nor
      changed.
    - `network`: the infrastructure's bridge network, on which each instance gets the address in its spec.
    - `helper_image`: an image with a shell, used to check host paths.
    - `keep_net_raw`: instances may send raw packets, which is Docker's default.
    """

    def __init__(
        self, name: str, network: str, helper_image: str, *, base_url: str | None = None, keep_net_raw: bool = False
    ) -> None:
        self.name = name
        self.network = network
        self._helper_image = helper_image
        self._keep_net_raw = keep_net_raw
        self.clients = ClientPool(base_url)
        self._inspect_cache = InspectCache()
        self._watcher = EventWatcher(self.clients, self._inspect_cache, name, network)
        self._images = Images()
        self._node = ""

    def close(self) -> None:
        """Close the idle connections. Each stream ends with its reader."""
        self.clients.close()

    async def ping(self) -> Mapping[str, Any]:
        return await self.clients.call(self._ping)

    async def pull(self, reference: str, auth: str | None = None) -> ImageInfo:
        return await self.clients.call_long(lambda client: self._images.pull(client, reference, auth))

    async def find_image(self, reference: str) -> ImageInfo | None:
        return await self.clients.call(lambda client: self._images.find(client, reference))

    async def compose_containers(self, project: str) -> Mapping[str, str]:
        label = f"{_COMPOSE_LABELS}.project={project}"
        found = await self.clients.call(lambda client: client.containers(filters={"label": label}))
        return {
            container["Labels"].get(f"{_COMPOSE_LABELS}.service", ""): container["Names"][0].removeprefix("/")
            for container in found
            if NAME not in container["Labels"] and container["Labels"].get(f"{_COMPOSE_LABELS}.oneoff") != "True"
        }

    async def networks_exist(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            return ()
        found = await self.clients.call(lambda client: client.networks())
        existing = {network[key] for network in found if not is_reserved(network) for key in ("Name", "Id")}
        return tuple(name for name in names if name not in existing)

    async def existing_volumes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        found = await self.clients.call(lambda client: client.volumes()) if names else {}
        existing = {volume["Name"] for volume in found.get("Volumes") or ()}
        return tuple(name for name in names if name in existing)

    async def start(self, spec: InstanceSpec) -> ContainerView:
        return await self.clients.call(lambda client: self._start(client, spec))

    async def enable_auto_restart(self, instance: str, container: str | None = None) -> None:
        await self.clients.call(lambda client: self._enable_auto_restart(client, instance, container))

    async def reconnect(self, instance: str, address: str, container: str | None = None) -> None:
        await self.clients.call(lambda client: self._reconnect(client, instance, container, address))

    async def observe(self, service: str | None = None) -> list[ContainerView]:
        signatures = await self.clients.call(lambda client: self._list(client, service))
        views = {id: self._inspect_cache.get(id, signature) for id, signature in signatures.items()}
        unknown = [id for id, view in views.items() if view is None]
        batches = [unknown[start::_MAX_CONCURRENT_INSPECTIONS] for start in range(_MAX_CONCURRENT_INSPECTIONS)]
        inspections = [
            self.clients.call(partial(self._inspect_all, {id: signatures[id] for id in batch})) for batch in batches if batch
        ]
        for inspected in await asyncio.gather(*inspections):
            views.update(inspected)
        return [view for view in views.values() if view is not None]

    async def stop(self, instance: str, grace: float, container: str | None = None) -> ContainerView | None:
        return await self.clients.call_long(lambda client: self._stop(client, instance, container, grace))

    async def remove(self, instance: str, container: str | None = None) -> None:
        await self.clients.call(lambda client: self._remove(client, instance, container))

    async def usage(self, instance: str, container: str | None = None) -> Usage | None:
        return await self.clients.call(lambda client: usage_of(client, container or f"{self.name}-{instance}"))

    async def logs(
        self,
        instance: str,
        container: str | None = None,
        *,
        tail: int = 200,
        since: float | None = None,
        timestamps: bool = False,
    ) -> str:
        options = {"tail": tail, "since": since or None, "timestamps": timestamps}
        return await self.clients.call(lambda client: self._logs(client, instance, container, options))

    async def follow_logs(
        self,
        instance: str,
        container: str | None = None,
        *,
        tail: int = 200,
        since: float | None = None,
        timestamps: bool = False,
    ) -> AsyncGenerator[str]:
        options = {"tail": tail, "since": since or None, "timestamps": timestamps}
        lines = iterate_in_thread(lambda stop: self._follow(stop, instance, container, options), f"logs of {instance}")
        try:
            async for line in lines:
                yield line
        finally:
            await lines.aclose()

    async def events(self) -> AsyncGenerator[EngineEvent]:
        events = iterate_in_thread(self._watcher.watch, "engine events")
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def build(self, spec: BuildSpec) -> AsyncGenerator[str]:
        lines = iterate_in_thread(lambda stop: build(stop, self.clients.new, self.name, spec), f"build of {spec.tag}")
        try:
            async for line in lines:
                yield line
        finally:
            await lines.aclose()

    async def tag(self, image: str, tag: str) -> None:
        repository, version = parse_repository_tag(tag)
        await self.clients.call(lambda client: client.tag(image, repository, version))

    async def prune(self, keep: frozenset[str]) -> tuple[str, ...]:
        return await self.clients.call_long(lambda client: prune(client, self.name, keep))

    # The methods below run on a client's thread.

    def _ping(self, client: docker.APIClient) -> Mapping[str, Any]:
        self._node = self._node or client.info()["Name"]
        return {"version": client.version()["Version"], "api_version": client.api_version, "node": self._node}

    def _start(self, client: docker.APIClient, spec: InstanceSpec) -> ContainerView:
        name = f"{self.name}-{spec.id}"
        refuse_mounts(client, self.name, self._helper_image, spec)
        try:
            labels = image_labels(client, spec.image_id)
            body = container_config(spec, self.name, self.network, image_labels=labels, keep_net_raw=self._keep_net_raw)
            create: Any = client.create_container_from_config
            container_id: str = create(body, name)["Id"]
        except APIError as error:
            if error.status_code == 404 and "no such image" in str(error.explanation).lower():
                raise EngineError(str(error.explanation), reason=IMAGE_GONE) from error
            if error.status_code != 409:
                raise
            try:
                existing = self._adopt_existing(client, spec)
            except NotFound:
                raise EngineError(f"The container of {spec.id} disappeared during its start", transient=True) from None
            if existing.state != "created":
                return existing
            container_id = existing.container_id
        try:
            self._refuse_when_full(client)
            self._join(client, container_id, spec.fields.networks)
            client.start(container_id)
        except (APIError, EngineError) as error:
            with suppress(APIError):
                client.remove_container(container_id, v=True, force=True)
            if isinstance(error, APIError) and self._names_missing_network(error):
                raise EngineError(f'The network "{self.network}" is missing', transient=True) from error
            raise
        stamp = self._inspect_cache.stamp(container_id)
        view = self._inspect(client, container_id)
        if view is None:
            raise EngineError(f"The container of {spec.id} disappeared during its start")
        self._inspect_cache.record_start(view, stamp)
        return view

    def _adopt_existing(self, client: docker.APIClient, spec: InstanceSpec) -> ContainerView:
        """Return the existing container with this instance's name.

        Raises EngineError if it is not this instance.
        """
        name = f"{self.name}-{spec.id}"
        found = client.inspect_container(name)
        labels = found["Config"].get("Labels") or {}
        expected = labels_of(spec, self.name)
        differ = [label for label in (NAME, INSTANCE, HASH) if labels.get(label) != expected[label]]
        view = parse_container(found, self.name, self.network)
        differ += ["address"] if view is not None and view.address not in (None, spec.address) else []
        if differ or view is None:
            raise EngineError(
                f'A container called "{name}" already exists and is not this instance '
                f"({', '.join(differ) or 'labels'} differ); it is left alone"
            )
        return view

    def _names_missing_network(self, error: APIError) -> bool:
        """Return whether a start failed because Sluice's own network is missing, which Sluice creates again."""
        return error.status_code == 404 and f"network {self.network} not found" in str(error.explanation)

    def _refuse_when_full(self, client: docker.APIClient) -> None:
        connected = len(client.inspect_network(self.network)["Containers"] or {})
        if connected >= MAX_INSTANCES:
            raise EngineError(
                f'The network "{self.network}" has {connected} containers; Sluice starts no more than {MAX_INSTANCES}, '
                "because a bridge takes about 1,000",
                reason="no_capacity",
            )

    def _join(self, client: docker.APIClient, container_id: str, networks: Sequence[str]) -> None:
        if not networks:
            return
        joined = client.inspect_container(container_id)["NetworkSettings"]["Networks"]
        for network in networks:
            if network not in joined:
                if is_reserved(client.inspect_network(network)):
                    raise EngineError(f'the network "{network}" is not open to services', reason="invalid_spec")
                client.connect_container_to_network(container_id, network)

    def _enable_auto_restart(self, client: docker.APIClient, instance: str, container: str | None) -> None:
        view = self._find(client, instance, container)
        if view is None:
            raise EngineError(f"{instance} was removed", reason="instance_gone")
        if not view.auto_restart:
            try:
                client.update_container(view.container_id, restart_policy=RESTART_ALWAYS)
            except NotFound:
                raise EngineError(f"{instance} was removed", reason="instance_gone") from None
            self._inspect_cache.invalidate(view.container_id)

    def _reconnect(self, client: docker.APIClient, instance: str, container: str | None, address: str) -> None:
        view = self._find(client, instance, container)
        if view is None or view.state != "running" or view.address == address:
            return
        if view.address is not None:
            client.disconnect_container_from_network(view.container_id, self.network)
        client.connect_container_to_network(view.container_id, self.network, ipv4_address=address)
        self._inspect_cache.invalidate(view.container_id)

    def _list(self, client: docker.APIClient, service: str | None) -> dict[str, str]:
        """Return the ids of this Sluice's containers, each with the state that the engine's list shows."""
        which = f"{SERVICE}={service}" if service else SERVICE
        found = client.containers(all=True, filters={"label": [f"{NAME}={self.name}", which]})
        return {
            container["Id"]: container["State"] + state_signature(container["Status"])
            for container in found
            if parse_instance(container["Labels"], self.name)
        }

    def _inspect_all(self, signatures: Mapping[str, str], client: docker.APIClient) -> dict[str, ContainerView | None]:
        views = {}
        for container_id, signature in signatures.items():
            stamp = self._inspect_cache.stamp(container_id)
            views[container_id] = view = self._inspect(client, container_id)
            if view is not None:
                self._inspect_cache.store(view, signature, stamp)
        return views

    def _stop(self, client: docker.APIClient, instance: str, container: str | None, grace: float) -> ContainerView | None:
        view = self._find(client, instance, container)
        if view is None or view.state != "running":
            return view
        with suppress(NotFound):
            if view.auto_restart:
                # An engine that restarts before the container is removed must not start it again.
                client.update_container(view.container_id, restart_policy=RESTART_NEVER)
            client.stop(view.container_id, timeout=math.ceil(grace))
        return self._inspect(client, view.container_id)

    def _remove(self, client: docker.APIClient, instance: str, container: str | None) -> None:
        view = self._find(client, instance, container)
        if view is None:
            return
        try:
            client.remove_container(view.container_id, v=True)
        except NotFound:
            return
        except APIError as error:
            if "already in progress" not in str(error.explanation):
                raise

    def _logs(self, client: docker.APIClient, instance: str, container: str | None, options: Mapping[str, Any]) -> str:
        container_id = self._must_find(client, instance, container)
        parts, size, cut = deque[bytes](), 0, False
        for part in client.logs(container_id, stdout=True, stderr=True, **options, stream=True, follow=False):
            parts.append(part)
            size += len(part)
            while size > MAX_LOG_BYTES:
                size -= len(parts.popleft())
                cut = True
        text = b"".join(parts)
        return (text.partition(b"\n")[2] if cut else text).decode(errors="replace")

    def _follow(
        self, stop: StreamCancel, instance: str, container: str | None, options: Mapping[str, Any]
    ) -> Generator[str]:
        with translate_errors(), closing(self.clients.new()) as client:
            container_id = self._must_find(client, instance, container)
            started_at = running_start(client, container_id)
            stream = client.logs(container_id, stdout=True, stderr=True, **options, stream=True, follow=True)
            stop.set_stream(stream)
            partial = b""
            for chunk in stream:
                *lines, partial = (partial + chunk).split(b"\n")
                if len(partial) > MAX_LINE_BYTES:
                    lines, partial = [*lines, partial], b""
                yield from (line.decode(errors="replace") for line in lines)
            if partial:
                yield partial.decode(errors="replace")
            # The end of a log and a broken connection look the same to the SDK.
            if started_at and started_at == running_start(client, container_id):
                raise EngineError(f"The log of {instance} was interrupted", transient=True)

    def _must_find(self, client: docker.APIClient, instance: str, container: str | None) -> str:
        view = self._find(client, instance, container)
        if view is None:
            raise EngineError(f"{instance} was removed", reason="instance_gone")
        return view.container_id

    def _find(self, client: docker.APIClient, instance: str, container: str | None) -> ContainerView | None:
        """Return the instance's container with this id, or the one with the instance's name; else None."""
        view = self._inspect(client, container or f"{self.name}-{instance}")
        return view if view is not None and view.instance == instance else None

    def _inspect(self, client: docker.APIClient, container: str) -> ContainerView | None:
        try:
            return parse_container(client.inspect_container(container), self.name, self.network)
        except NotFound:
            return None
