"""Keeps what is wanted, the files, and what the worker has read in step; gathers reloads."""

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
"""Seconds in which changes that need a reload are gathered into one."""
MAX_QUEUE_WAIT = 2.0
"""Seconds that a reload waits until no request is held. What is still held then is handed to the new worker."""


class ConfigState:
    """One owner, one source: `desired` in memory, rendered into the files, read by the worker."""

    def __init__(self, directory: Path, api: RuntimeApi, counters: Counters, retained: ListenerRetention) -> None:
        self.desired: dict[str, DesiredBackend] = {}
        self.lock = ReadWriteLock()
        self.loaded: HaproxyConfig | None = None
        """What the present worker has read, as far as only a reload can change it."""
        self._api = api
        self._counters = counters
        self._listener_retention = retained
        self._files = Files(directory)
        self._settings: GatewaySettings | None = None
        self._binds: frozenset[tuple[str, int]] = frozenset()
        """On which it listens already."""
        self._blocks: dict[str, tuple[DesiredBackend, BackendConfig]] = {}
        self._pending: dict[str, tuple[RoutedService | None, asyncio.Future[None]]] = {}
        self._reloading: asyncio.Task[None] | None = None

    @property
    def settings(self) -> GatewaySettings:
        if self._settings is None:
            raise RoutingError("The gateway has not been set up yet")
        return self._settings

    def configure(self, settings: GatewaySettings) -> None:
        """Adopt the files that are there; write them when they are not, or were made with other settings. What is wanted
        already is not asked of the files: they are made so again. RoutingError when they cannot be written, or name another
        public port that somebody has: the old files stay, with which a gateway that is started anew still serves."""
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
                # Services that do not go with the new settings are told of again by whoever knows them.
                self.desired = {}
                self.write()

    def _move(self, before: int, now: int) -> None:
        busy = ports_in_use({("0.0.0.0", now)})  # noqa: S104 - the public port
        if busy:
            raise RoutingError(f"{'; '.join(busy.values())}; a gateway goes on at {before}, if it runs")
        log.warning("gateway_port_changes", before=before, now=now)

    def block(self, service: str) -> BackendConfig | None:
        """Of what is wanted now."""
        return self._block(self.desired[service]) if service in self.desired else None

    def set_backend(self, wanted: DesiredBackend) -> BackendConfig:
        """A service is to be so from now on, in memory and in the files. RoutingError; then nothing has changed."""
        together = {**self.desired, wanted.name: wanted}
        rendered = self.render(together)
        self.desired = together
        self._write(rendered)
        return rendered.blocks[wanted.name]

    def remove_backend(self, service: str) -> None:
        """It is to be no more."""
        self.desired.pop(service, None)
        self.write()

    def write(self) -> HaproxyConfig:
        """Everything that is wanted, into the files. RoutingError."""
        return self._write(self.render(self.desired))

    def render(self, wanted: Mapping[str, DesiredBackend]) -> HaproxyConfig:
        """RoutingError when it does not fit together."""
        try:
            return render(self.settings, [self._block(each) for each in wanted.values()])
        except ValueError as error:
            raise RoutingError(str(error)) from error

    def validate_service(self, service: RoutedService) -> BackendConfig:
        """Its block beside everything that is wanted or asked for. RoutingError when it does not fit."""
        together = {**self.desired, **self._with_pending(), service.name: self._desired_backend(service)}
        return self.render(together).blocks[service.name]

    def changed_files(self) -> list[str]:
        """Those that somebody else has changed or removed."""
        return self._files.changed()

    async def is_loaded(self) -> bool:
        """The present worker is the one that was thought; a container that was restarted has read the latest file."""
        return self.loaded is not None and await self.config_digest() == self.loaded.shape

    async def config_digest(self) -> str:
        """Of the file that the present worker has read."""
        found = re.search(r"value=<(\w+)>", await self._api.query("get var proc.shape"))
        return found[1] if found else ""

    async def reload(self, service: RoutedService) -> None:
        """With `service` as it is given, gathered with what others ask for. RoutingError; then nothing has changed."""
        await asyncio.shield(self._enqueue(service.name, service))

    def reload_soon(self, service: str) -> None:
        """What is wanted differs from what the worker has read, in a way that harms nobody meanwhile."""
        if service not in self._pending:
            self._enqueue(service, None)

    async def reload_now(self) -> None:
        """To what is wanted; the caller is alone. RoutingError; then the old files are back."""
        rendered = self.render(self.desired)
        busy = ports_in_use(rendered.binds - self._binds)
        if busy:
            raise RoutingError("; ".join(busy.values()))
        await self._load(rendered)

    @contextmanager
    def hand_over_to(self, settings: GatewaySettings) -> Iterator[Callable[[], None]]:
        """The files are those of these settings, for another HAProxy that is started in the block by whoever is alone. They
        stay so once what is yielded was called: it has read them. Otherwise the old ones are back. RoutingError."""
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
        """Files first, then the worker; the old files when it does not take them."""
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
        """The present worker."""
        self.loaded, self._binds = rendered, rendered.binds
        self._listener_retention.has_read(rendered.binds)

    async def wait_until_queue_is_empty(self) -> None:
        """Or a moment has passed: what is held by a worker that is replaced has to begin to wait again."""
        looks = 20
        for _ in range(looks):
            try:
                if not await self._api.queued_requests():
                    return
            except RoutingError:
                return
            await asyncio.sleep(MAX_QUEUE_WAIT / looks)

    def _with_possible_ports(self) -> dict[str, tuple[RoutedService | None, asyncio.Future[None]]]:
        """What is asked for, less the services whose ports cannot be had: they are told so."""
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
        """With the members that it has."""
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
