"""Reloads of the gateway: they collect changes, and a failed reload changes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from services.concurrency import ReadWriteLock
from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.render import BackendConfig, HaproxyConfig
from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.lifecycle.conflicts import drop_conflicting
from services.gateway.lifecycle.listener_retention import ListenerRetention
from services.gateway.lifecycle.pending_changes import PendingChange, complete_all
from services.gateway.lifecycle.port_check import ports_in_use
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.listener_transfer import Bind
from services.gateway.runtime.runtime_api import RuntimeApi
from services.routing.port import RoutedService, RoutingError

log = structlog.get_logger(__name__)
RELOAD_BATCH_WINDOW = 0.2
"""Seconds in which changes that need a reload are collected into one."""
MAX_QUEUE_WAIT = 2.0
"""Seconds, at most, that a reload waits until no request is queued.

Requests that are still queued then are passed to the new worker.
"""
_QUEUE_CHECKS = 20
"""Number of checks within MAX_QUEUE_WAIT."""


class Reloader:
    """The configuration that the worker has loaded, and the reloads that replace it.

    `lock` is held shared for changes that the worker accepts, and exclusively while the worker is replaced.
    """

    def __init__(self, config: ConfigState, api: RuntimeApi, counters: Counters, retention: ListenerRetention) -> None:
        self.lock = ReadWriteLock()
        self.loaded: HaproxyConfig | None = None
        """Configuration that the current worker has loaded, as far as only a reload can change it; None if not known."""
        self._config = config
        self._api = api
        self._counters = counters
        self._retention = retention
        self._binds: frozenset[Bind] = frozenset()
        """Addresses and ports on which the gateway listens already."""
        self._knows_binds = False
        """Whether a gateway that was running before this Sluice cannot listen on others."""
        self._pending: dict[str, PendingChange] = {}
        self._task: asyncio.Task[None] | None = None

    def adopt(self, settings: GatewaySettings) -> None:
        """Adopt the files, which a running gateway has loaded. Raises RoutingError as ConfigState.adopt does."""
        adopted = self._config.adopt(settings)
        self._knows_binds = adopted is not None
        self._binds = (adopted or self._config.render({})).binds

    def drop_unbindable(self) -> list[str]:
        """Remove the services whose ports other processes use from the files, and return their names.

        For a gateway that cannot start because of them. Once a worker has loaded the files, nothing is removed: the callers
        count on what they have published. Raises RoutingError; nothing has changed then.
        """
        if self.loaded is not None:
            return []
        common = self._config.render({}).binds | self._retention.binds
        desired = self._config.desired
        bindable = {
            name: backend
            for name, backend in desired.items()
            if not ports_in_use(self._config.render({name: backend}).binds - common)
        }
        if len(bindable) < len(desired):
            self._binds = self._config.set_backends(bindable).binds
        return sorted(desired.keys() - bindable.keys())

    async def restore(self, backends: Mapping[str, DesiredBackend]) -> HaproxyConfig:
        """Make files and worker have exactly these backends, and return their configuration.

        The caller holds `lock` exclusively. Backends that conflict with others, or whose ports are in use, stay as they were
        or are left out. Raises RoutingError; nothing has changed then.
        """
        fitting = drop_conflicting(backends, self._config.desired, self._config.render)
        digest = await self.loaded_digest()
        if digest != self._config.render(fitting).static_digest and self._knows_binds:
            self._check_ports(self._config.render({}))
            fitting = drop_conflicting(fitting, self._config.desired, self._render_with_free_ports)
        if digest != self._config.render(fitting).static_digest:
            self._render_with_free_ports(fitting)
            await self._load(fitting)
        else:
            self.mark_loaded(self._config.set_backends(fitting))
        return self._config.render(fitting)

    async def reload(self, service: RoutedService) -> None:
        """Reload with `service` as given, together with the changes of other callers.

        Raises RoutingError; nothing has changed then.
        """
        await asyncio.shield(self._enqueue(service.name, service))

    def reload_soon(self, service: str) -> None:
        """Schedule a reload for a difference between desired state and worker that does no harm until then."""
        if service not in self._pending:
            self._enqueue(service, None)

    def pending_services(self) -> list[RoutedService]:
        """Return the settings of services that wait for the next reload."""
        return [change.service for change in self._pending.values() if change.service is not None]

    def can_apply_live(self, backend: BackendConfig) -> bool:
        """Return whether the current worker can apply `backend` without a reload."""
        return self.loaded is not None and self.loaded.can_apply_live(backend)

    async def is_loaded(self) -> bool:
        """Return whether the current worker has loaded the configuration in `loaded`.

        A container that was restarted has loaded the latest file instead.
        """
        return self.loaded is not None and await self.loaded_digest() == self.loaded.static_digest

    async def loaded_digest(self) -> str:
        """Return the digest of the file that the current worker has loaded. Raises RoutingError."""
        found = re.search(r"value=<(\w+)>", await self._api.query("get var proc.shape"))
        return found[1] if found else ""

    def mark_loaded(self, rendered: HaproxyConfig) -> None:
        """Record the configuration that the current worker has loaded."""
        self.loaded, self._binds, self._knows_binds = rendered, rendered.binds, True
        self._retention.set_binds(rendered.binds)

    @contextmanager
    def hand_over_to(self, settings: GatewaySettings) -> Iterator[Callable[[], None]]:
        """Write the files with these settings, for another HAProxy that is started in the block.

        The caller holds `lock` exclusively. Call the yielded function once the other HAProxy has loaded the files: they stay
        then. Otherwise the old files are restored. Raises RoutingError.
        """
        loaded = False

        def mark_loaded() -> None:
            nonlocal loaded
            loaded = True
            self.mark_loaded(rendered)

        with self._config.checkpoint() as restore:
            try:
                rendered = self._config.write_all(settings)
                yield mark_loaded
            finally:
                if not loaded:
                    restore()

    async def wait_until_queue_is_empty(self) -> None:
        """Wait until no request is queued, for MAX_QUEUE_WAIT seconds at most.

        A request that is queued on a replaced worker has to start waiting again.
        """
        for _ in range(_QUEUE_CHECKS):
            try:
                if not await self._api.queued_requests():
                    return
            except RoutingError:
                return
            await asyncio.sleep(MAX_QUEUE_WAIT / _QUEUE_CHECKS)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        complete_all(self._pending.values(), _closed())

    def _enqueue(self, name: str, service: RoutedService | None) -> asyncio.Future[None]:
        change = self._pending.setdefault(name, PendingChange(service))
        change.service = service
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reload_pending())
        return change.done

    async def _reload_pending(self) -> None:
        while self._pending:
            await asyncio.sleep(RELOAD_BATCH_WINDOW)
            await self.wait_until_queue_is_empty()
            async with self.lock.exclusive():
                pending, self._pending = self._pending, {}
                changes = pending.values()
                try:
                    await self._apply(changes)
                except RoutingError as error:
                    complete_all(changes, error)
                except Exception as error:
                    log.exception("gateway_reload_failed")
                    complete_all(changes, RoutingError(f"The gateway was not reloaded: {error}"))
                except BaseException:
                    complete_all(changes, _closed())
                    raise
                else:
                    complete_all(changes)

    async def _apply(self, changes: Iterable[PendingChange]) -> None:
        """Reload with these changes; those fail whose ports are in use. Raises RoutingError."""
        possible = []
        for change in changes:
            try:
                if change.service is not None:
                    self._render_with_free_ports({change.service.name: self._config.backend_for(change.service)})
            except RoutingError as error:
                change.complete(error)
            else:
                possible.append(change)
        if possible:
            backends = [self._config.backend_for(change.service) for change in possible if change.service is not None]
            await self._load({**self._config.desired, **{backend.name: backend for backend in backends}})

    async def _load(self, backends: Mapping[str, DesiredBackend]) -> None:
        """Write the files and reload the worker. Raises RoutingError.

        Backends and files are then unchanged.
        """
        with self._config.checkpoint() as restore:
            rendered = self._config.set_backends(backends)
            try:
                await self._counters.before_reload()
                await self._api.reload()
                if await self.loaded_digest() != rendered.static_digest:
                    raise RoutingError("The gateway's reload failed: its worker has loaded another file")
            except Exception:
                restore()
                raise
        self.mark_loaded(rendered)

    def _render_with_free_ports(self, backends: Mapping[str, DesiredBackend]) -> HaproxyConfig:
        rendered = self._config.render(backends)
        self._check_ports(rendered)
        return rendered

    def _check_ports(self, rendered: HaproxyConfig) -> None:
        """Raise a lasting RoutingError if another process listens on a port of this configuration."""
        busy = ports_in_use(rendered.binds - self._binds)
        if busy:
            raise RoutingError(f"The gateway cannot listen: {'; '.join(busy.values())}; free the port", lasting=True)


def _closed() -> RoutingError:
    return RoutingError("The gateway was not reloaded: Sluice is stopping")
