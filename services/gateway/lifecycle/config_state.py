"""Keeps desired state, files and worker in step, and collects changes into shared reloads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from services.concurrency import ReadWriteLock
from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.render import BackendConfig, HaproxyConfig, render, render_service
from services.gateway.lifecycle.files import Files
from services.gateway.lifecycle.listener_retention import ListenerRetention
from services.gateway.lifecycle.port_check import ports_in_use
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.runtime_api import RuntimeApi
from services.routing.port import RoutedService, RoutingError

log = structlog.get_logger(__name__)
RELOAD_BATCH_WINDOW = 0.2
"""Seconds in which changes that need a reload are collected into one."""
MAX_QUEUE_WAIT = 2.0
"""Seconds, at most, that a reload waits until no request is queued.

Requests that are still queued then are passed to the new worker.
"""


class ConfigState:
    """Owner of the gateway's configuration.

    `desired` in memory is the only source. It is rendered into the files, which the worker reads.
    """

    def __init__(self, directory: Path, api: RuntimeApi, counters: Counters, retained: ListenerRetention) -> None:
        self.desired: dict[str, DesiredBackend] = {}
        self.lock = ReadWriteLock()
        self.loaded: HaproxyConfig | None = None
        """Configuration that the present worker has read, as far as only a reload can change it."""
        self._api = api
        self._counters = counters
        self._listener_retention = retained
        self._files = Files(directory)
        self._settings: GatewaySettings | None = None
        self._binds: frozenset[tuple[str, int]] = frozenset()
        """Addresses and ports on which the gateway already listens."""
        self._blocks: dict[str, tuple[DesiredBackend, BackendConfig]] = {}
        self._pending: dict[str, tuple[RoutedService | None, asyncio.Future[None]]] = {}
        self._reloading: asyncio.Task[None] | None = None

    @property
    def settings(self) -> GatewaySettings:
        if self._settings is None:
            raise RoutingError("The gateway has not been set up yet")
        return self._settings

    def configure(self, settings: GatewaySettings) -> None:
        """Adopt the present files; write them if there are none or if they have other settings.

        After the first call, the files are written from `desired` and not read. Raises RoutingError if the files cannot be
        written, or if they name another public port and the new one is in use. The old files then stay: a gateway that is
        restarted still serves with them.
        """
        if self._settings is not None:
            self._settings = settings
            self._files.invalidate()
            self.write()
            return
        found = self._files.read()
        if found is not None and found[0].public_port != settings.public_port:
            self._move(found[0].public_port, settings.public_port)
        self._settings = settings
        if found is None:
            self._binds = self.write().binds
            return
        self.desired = {each.name: each for each in found[1]}
        self._binds = render(found[0], [self._block(each) for each in found[1]]).binds
        if found[0] != settings:
            try:
                self.write()
            except RoutingError:
                # The desired services conflict with the new settings. The callers that know these services publish them
                # again.
                self.desired = {}
                self.write()

    def _move(self, before: int, now: int) -> None:
        busy = ports_in_use({("0.0.0.0", now)})  # noqa: S104 - the public port
        if busy:
            raise RoutingError(f"{'; '.join(busy.values())}; a gateway goes on at {before}, if it runs")
        log.warning("gateway_port_changes", before=before, now=now)

    def block(self, service: str) -> BackendConfig | None:
        """Return the service's part of the desired configuration; None if the service is not desired."""
        return self._block(self.desired[service]) if service in self.desired else None

    def set_backend(self, wanted: DesiredBackend) -> BackendConfig:
        """Set a service's desired backend, in memory and in the files.

        Raises RoutingError if the backend conflicts with the others; nothing has changed then.
        """
        together = {**self.desired, wanted.name: wanted}
        rendered = self.render(together)
        self.desired = together
        self._write(rendered)
        return rendered.blocks[wanted.name]

    def remove_backend(self, service: str) -> None:
        """Remove a service's backend, from memory and from the files."""
        self.desired.pop(service, None)
        self.write()

    def write(self) -> HaproxyConfig:
        """Write the desired configuration to the files. Raises RoutingError."""
        return self._write(self.render(self.desired))

    def render(self, wanted: Mapping[str, DesiredBackend]) -> HaproxyConfig:
        """Render these backends. Raises RoutingError if they conflict."""
        try:
            return render(self.settings, [self._block(each) for each in wanted.values()])
        except ValueError as error:
            raise RoutingError(str(error)) from error

    def validate_service(self, service: RoutedService) -> BackendConfig:
        """Return the service's part of a configuration with everything that is desired or pending.

        Raises RoutingError if the service conflicts with the others.
        """
        together = {**self.desired, **self._with_pending(), service.name: self._desired_backend(service)}
        return self.render(together).blocks[service.name]

    def changed_files(self) -> list[str]:
        """Return the names of the files that another program changed or removed."""
        return self._files.changed()

    async def is_loaded(self) -> bool:
        """Return whether the present worker has read the configuration in `loaded`.

        A container that was restarted has read the latest file instead.
        """
        return self.loaded is not None and await self.config_digest() == self.loaded.shape

    async def config_digest(self) -> str:
        """Return the digest of the file that the present worker has read."""
        found = re.search(r"value=<(\w+)>", await self._api.query("get var proc.shape"))
        return found[1] if found else ""

    async def reload(self, service: RoutedService) -> None:
        """Reload with `service` as given, together with the changes of other callers.

        Raises RoutingError; nothing has changed then.
        """
        await asyncio.shield(self._enqueue(service.name, service))

    def reload_soon(self, service: str) -> None:
        """Schedule a reload for a difference between desired state and worker that does no harm until then."""
        if service not in self._pending:
            self._enqueue(service, None)

    async def reload_now(self) -> None:
        """Reload to the desired configuration; the caller holds the lock exclusively.

        Raises RoutingError; the old files are restored then.
        """
        rendered = self.render(self.desired)
        busy = ports_in_use(rendered.binds - self._binds)
        if busy:
            raise RoutingError("; ".join(busy.values()))
        await self._load(rendered)

    @contextmanager
    def hand_over_to(self, settings: GatewaySettings) -> Iterator[Callable[[], None]]:
        """Write the files with these settings, for another HAProxy that is started in the block.

        The caller holds the lock exclusively. Call the yielded function once the other HAProxy has read the files: they stay
        then. Otherwise the old files are restored. Raises RoutingError.
        """
        before, read = self._settings, False

        def has_read() -> None:
            nonlocal read
            read = True
            self.has_read(rendered)

        self._settings = settings
        self._files.invalidate()
        try:
            rendered = self.write()
            yield has_read
        finally:
            if not read:
                self._settings = before
                self.write()

    async def close(self) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)
        _complete(self._pending, RoutingError("The gateway was closed"))

    def _enqueue(self, name: str, service: RoutedService | None) -> asyncio.Future[None]:
        _, done = self._pending.get(name, (None, None))
        if done is None:
            done = asyncio.get_running_loop().create_future()
            done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._pending[name] = service, done
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload())
        return done

    async def _reload(self) -> None:
        while self._pending:
            await asyncio.sleep(RELOAD_BATCH_WINDOW)
            await self.wait_until_queue_is_empty()
            async with self.lock.exclusive():
                asked, self._pending = self._with_possible_ports(), {}
                if not asked:
                    continue
                before = dict(self.desired)
                self.desired |= {
                    name: self._desired_backend(service) for name, (service, _) in asked.items() if service is not None
                }
                try:
                    await self._load(self.render(self.desired))
                except BaseException as error:
                    self.desired = before
                    _complete(asked, error if isinstance(error, RoutingError) else RoutingError("The gateway was closed"))
                    if not isinstance(error, RoutingError):
                        raise
                else:
                    _complete(asked, None)

    async def _load(self, rendered: HaproxyConfig) -> None:
        """Write the files, then reload the worker; restore the old files if the reload fails."""
        before = self._files.written()
        self._write(rendered)
        try:
            await self._counters.before_reload()
            await self._api.reload()
            if await self.config_digest() != rendered.shape:
                raise RoutingError("The gateway says that it has reloaded, but its worker has another file")
        except RoutingError:
            self._files.restore(before)
            raise
        self.has_read(rendered)

    def has_read(self, rendered: HaproxyConfig) -> None:
        """Record the configuration that the present worker has read."""
        self.loaded, self._binds = rendered, rendered.binds
        self._listener_retention.has_read(rendered.binds)

    async def wait_until_queue_is_empty(self) -> None:
        """Wait until no request is queued, for MAX_QUEUE_WAIT seconds at most.

        A request that is queued on a replaced worker has to start waiting again.
        """
        looks = 20
        for _ in range(looks):
            try:
                if not await self._api.queued_requests():
                    return
            except RoutingError:
                return
            await asyncio.sleep(MAX_QUEUE_WAIT / looks)

    def _with_possible_ports(self) -> dict[str, tuple[RoutedService | None, asyncio.Future[None]]]:
        """Return the pending changes, without services whose ports are not free: these fail."""
        possible = {}
        for name, (service, done) in self._pending.items():
            alone = self.render({name: self._desired_backend(service)}) if service is not None else None
            busy = ports_in_use(alone.binds - self._binds) if alone else {}
            if busy:
                _complete({name: (service, done)}, RoutingError("; ".join(busy.values()), lasting=True))
            else:
                possible[name] = service, done
        return possible

    def _with_pending(self) -> dict[str, DesiredBackend]:
        return {name: self._desired_backend(service) for name, (service, _) in self._pending.items() if service is not None}

    def _desired_backend(self, service: RoutedService) -> DesiredBackend:
        """Return the service's desired backend with its present endpoints."""
        present = self.desired.get(service.name)
        return DesiredBackend(service, present.endpoints if present else {})

    def _block(self, wanted: DesiredBackend) -> BackendConfig:
        known = self._blocks.get(wanted.name)
        if known is None or known[0] is not wanted:
            known = self._blocks[wanted.name] = wanted, render_service(wanted)
        return known[1]

    def _write(self, rendered: HaproxyConfig) -> HaproxyConfig:
        self._files.write(rendered, self.settings, [self.desired[name] for name in rendered.blocks])
        return rendered


def _complete(asked: Mapping[str, tuple[RoutedService | None, asyncio.Future[None]]], error: RoutingError | None) -> None:
    for _, done in asked.values():
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
