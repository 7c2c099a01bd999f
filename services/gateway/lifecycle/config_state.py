"""Keeps what is wanted, the files, and what the worker has read in step; gathers reloads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from services.concurrency import ReadWriteLock
from services.gateway.config.model import GatewaySettings, Wanted
from services.gateway.config.render import Block, Rendered, render, render_service
from services.gateway.lifecycle.files import Files
from services.gateway.lifecycle.listener_retention import ListenerRetention
from services.gateway.lifecycle.port_check import taken
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.runtime_api import RuntimeApi
from services.routing.port import RoutedService, RoutingError

log = structlog.get_logger(__name__)
GATHER = 0.2
"""Seconds in which changes that need a reload are gathered into one."""
HELD_AT_MOST = 2.0
"""Seconds that a reload waits until no request is held. What is still held then is handed to the new worker."""


class Keeper:
    """One owner, one source: `wanted` in memory, rendered into the files, read by the worker."""

    def __init__(self, directory: Path, api: RuntimeApi, counters: Counters, retained: ListenerRetention) -> None:
        self.wanted: dict[str, Wanted] = {}
        self.gate = ReadWriteLock()
        self.loaded: Rendered | None = None
        """What the present worker has read, as far as only a reload can change it."""
        self._api = api
        self._counters = counters
        self._listener_retention = retained
        self._files = Files(directory)
        self._settings: GatewaySettings | None = None
        self._binds: frozenset[tuple[str, int]] = frozenset()
        """On which it listens already."""
        self._blocks: dict[str, tuple[Wanted, Block]] = {}
        self._asked: dict[str, tuple[RoutedService | None, asyncio.Future[None]]] = {}
        self._reloading: asyncio.Task[None] | None = None

    @property
    def settings(self) -> GatewaySettings:
        if self._settings is None:
            raise RoutingError("The gateway has not been set up yet")
        return self._settings

    def stand_on(self, settings: GatewaySettings) -> None:
        """Adopt the files that are there; write them when they are not, or were made with other settings. What is wanted
        already is not asked of the files: they are made so again. RoutingError when they cannot be written, or name another
        public port that somebody has: the old files stay, with which a gateway that is started anew still serves."""
        if self._settings is not None:
            self._settings = settings
            self._files.distrust()
            self.write()
            return
        found = self._files.read()
        if found is not None and found[0].public_port != settings.public_port:
            self._move(found[0].public_port, settings.public_port)
        self._settings = settings
        if found is None:
            self._binds = self.write().binds
            return
        self.wanted = {each.name: each for each in found[1]}
        self._binds = render(found[0], [self._block(each) for each in found[1]]).binds
        if found[0] != settings:
            try:
                self.write()
            except RoutingError:
                # Services that do not go with the new settings are told of again by whoever knows them.
                self.wanted = {}
                self.write()

    def _move(self, before: int, now: int) -> None:
        busy = taken({("0.0.0.0", now)})  # noqa: S104 - the public port
        if busy:
            raise RoutingError(f"{'; '.join(busy.values())}; a gateway goes on at {before}, if it runs")
        log.warning("gateway_port_changes", before=before, now=now)

    def block(self, service: str) -> Block | None:
        """Of what is wanted now."""
        return self._block(self.wanted[service]) if service in self.wanted else None

    def put(self, wanted: Wanted) -> Block:
        """A service is to be so from now on, in memory and in the files. RoutingError; then nothing has changed."""
        together = {**self.wanted, wanted.name: wanted}
        rendered = self.render(together)
        self.wanted = together
        self._write(rendered)
        return rendered.blocks[wanted.name]

    def drop(self, service: str) -> None:
        """It is to be no more."""
        self.wanted.pop(service, None)
        self.write()

    def write(self) -> Rendered:
        """Everything that is wanted, into the files. RoutingError."""
        return self._write(self.render(self.wanted))

    def render(self, wanted: Mapping[str, Wanted]) -> Rendered:
        """RoutingError when it does not fit together."""
        try:
            return render(self.settings, [self._block(each) for each in wanted.values()])
        except ValueError as error:
            raise RoutingError(str(error)) from error

    def try_service(self, service: RoutedService) -> Block:
        """Its block beside everything that is wanted or asked for. RoutingError when it does not fit."""
        together = {**self.wanted, **self._with_asked(), service.name: self._as(service)}
        return self.render(together).blocks[service.name]

    def changed_files(self) -> list[str]:
        """Those that somebody else has changed or removed."""
        return self._files.changed()

    async def is_loaded(self) -> bool:
        """The present worker is the one that was thought; a container that was restarted has read the latest file."""
        return self.loaded is not None and await self.shape() == self.loaded.shape

    async def shape(self) -> str:
        """Of the file that the present worker has read."""
        found = re.search(r"value=<(\w+)>", await self._api.ask("get var proc.shape"))
        return found[1] if found else ""

    async def reload(self, service: RoutedService) -> None:
        """With `service` as it is given, gathered with what others ask for. RoutingError; then nothing has changed."""
        await asyncio.shield(self._ask(service.name, service))

    def reload_soon(self, service: str) -> None:
        """What is wanted differs from what the worker has read, in a way that harms nobody meanwhile."""
        if service not in self._asked:
            self._ask(service, None)

    async def reload_now(self) -> None:
        """To what is wanted; the caller is alone. RoutingError; then the old files are back."""
        rendered = self.render(self.wanted)
        busy = taken(rendered.binds - self._binds)
        if busy:
            raise RoutingError("; ".join(busy.values()))
        await self._load(rendered)

    @contextmanager
    def succeeded_by(self, settings: GatewaySettings) -> Iterator[Callable[[], None]]:
        """The files are those of these settings, for another HAProxy that is started in the block by whoever is alone. They
        stay so once what is yielded was called: it has read them. Otherwise the old ones are back. RoutingError."""
        before, read = self._settings, False

        def has_read() -> None:
            nonlocal read
            read = True
            self.has_read(rendered)

        self._settings = settings
        self._files.distrust()
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
        _settle(self._asked, RoutingError("The gateway was closed"))

    def _ask(self, name: str, service: RoutedService | None) -> asyncio.Future[None]:
        _, done = self._asked.get(name, (None, None))
        if done is None:
            done = asyncio.get_running_loop().create_future()
            done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._asked[name] = service, done
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload())
        return done

    async def _reload(self) -> None:
        while self._asked:
            await asyncio.sleep(GATHER)
            await self.until_nothing_is_held()
            async with self.gate.exclusive():
                asked, self._asked = self._with_possible_ports(), {}
                if not asked:
                    continue
                before = dict(self.wanted)
                self.wanted |= {name: self._as(service) for name, (service, _) in asked.items() if service is not None}
                try:
                    await self._load(self.render(self.wanted))
                except BaseException as error:
                    self.wanted = before
                    _settle(asked, error if isinstance(error, RoutingError) else RoutingError("The gateway was closed"))
                    if not isinstance(error, RoutingError):
                        raise
                else:
                    _settle(asked, None)

    async def _load(self, rendered: Rendered) -> None:
        """Files first, then the worker; the old files when it does not take them."""
        before = self._files.written()
        self._write(rendered)
        try:
            await self._counters.before_reload()
            await self._api.reload()
            if await self.shape() != rendered.shape:
                raise RoutingError("The gateway says that it has reloaded, but its worker has another file")
        except RoutingError:
            self._files.put_back(before)
            raise
        self.has_read(rendered)

    def has_read(self, rendered: Rendered) -> None:
        """The present worker."""
        self.loaded, self._binds = rendered, rendered.binds
        self._listener_retention.has_read(rendered.binds)

    async def until_nothing_is_held(self) -> None:
        """Or a moment has passed: what is held by a worker that is replaced has to begin to wait again."""
        looks = 20
        for _ in range(looks):
            try:
                if not await self._api.held():
                    return
            except RoutingError:
                return
            await asyncio.sleep(HELD_AT_MOST / looks)

    def _with_possible_ports(self) -> dict[str, tuple[RoutedService | None, asyncio.Future[None]]]:
        """What is asked for, less the services whose ports cannot be had: they are told so."""
        possible = {}
        for name, (service, done) in self._asked.items():
            alone = self.render({name: self._as(service)}) if service is not None else None
            busy = taken(alone.binds - self._binds) if alone else {}
            if busy:
                _settle({name: (service, done)}, RoutingError("; ".join(busy.values()), lasting=True))
            else:
                possible[name] = service, done
        return possible

    def _with_asked(self) -> dict[str, Wanted]:
        return {name: self._as(service) for name, (service, _) in self._asked.items() if service is not None}

    def _as(self, service: RoutedService) -> Wanted:
        """With the members that it has."""
        present = self.wanted.get(service.name)
        return Wanted(service, present.endpoints if present else {})

    def _block(self, wanted: Wanted) -> Block:
        known = self._blocks.get(wanted.name)
        if known is None or known[0] is not wanted:
            known = self._blocks[wanted.name] = wanted, render_service(wanted)
        return known[1]

    def _write(self, rendered: Rendered) -> Rendered:
        self._files.write(rendered, self.settings, [self.wanted[name] for name in rendered.blocks])
        return rendered


def _settle(asked: Mapping[str, tuple[RoutedService | None, asyncio.Future[None]]], error: RoutingError | None) -> None:
    for _, done in asked.values():
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
