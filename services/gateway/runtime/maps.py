"""Changes to the maps of HAProxy's workers, each verified by reading it back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from services.gateway.config.model import RUN_DIRECTORY
from services.gateway.config.render import MAPS, BackendConfig
from services.gateway.runtime.runtime_api import CURRENT, RuntimeApi
from services.gateway.runtime.workers import Workers
from services.routing.port import RoutingError

MAX_COMMAND_BYTES = 8000
"""Maximum bytes of one command; HAProxy's buffer has 16 KiB."""
_SPECIAL = re.compile(r"([\\; ])")


@dataclass(frozen=True)
class MapChange:
    """Entries of one map to set, and keys to delete; `delete` is None for all other keys."""

    name: str
    entries: Mapping[str, str]
    delete: Collection[str] | None = None


class Maps:
    """Maps of the workers; all methods are idempotent and raise RoutingError."""

    def __init__(self, api: RuntimeApi, workers: Workers) -> None:
        self._api = api
        self._workers = workers

    async def entries(self, name: str) -> dict[str, str]:
        """Return the entries of a map in the current worker; empty if the worker never read the map."""
        return await self._read(name, CURRENT) or {}

    async def replace_all(self, maps: Mapping[str, Mapping[str, str]]) -> None:
        """Make the current worker's maps equal to `maps`."""
        for name in MAPS:
            await self._apply(MapChange(name, maps[name]))

    async def update(self, before: BackendConfig | None, after: BackendConfig | None, *, verify_all: bool = False) -> None:
        """Change one service's entries in every worker; only the current worker must succeed.

        Replaced workers route by maps as well. `verify_all` verifies every entry of `after`, not only those that differ.
        """
        changes = list(_changes(before, after, verify_all=verify_all))
        for change in changes:
            await self._apply(change)
        if not changes:
            return
        for worker in (await self._workers.all())[1:]:
            for change in changes:
                try:
                    await self._apply(change, worker.address)
                except RoutingError:
                    continue  # a replaced worker may end at any time

    async def _apply(self, change: MapChange, worker: str = CURRENT) -> None:
        """Apply a change to one worker's map. A map that the worker never read is left alone."""
        present = await self._read(change.name, worker)
        if present is None:
            return
        file, desired = _file(change.name), change.entries
        new = {key: value for key, value in desired.items() if key not in present}
        for lines in _batches(new):
            await self._api.execute(f"add map {file} <<\n{lines}", worker)
        different = [key for key, value in desired.items() if present.get(key, value) != value]
        for key in different:
            await self._api.execute(f"set map {file} {_escaped(key)} {_escaped(desired[key])}", worker)
        surplus = [key for key in present if key not in desired and (change.delete is None or key in change.delete)]
        for key in surplus:
            await self._api.execute(f"del map {file} {_escaped(key)}", worker)
        if new or different or surplus:
            present = await self._read(change.name, worker) or {}
        if any(present.get(key) != value for key, value in desired.items()) or any(key in present for key in surplus):
            raise RoutingError(f"The gateway's map of {change.name} is not updated: HAProxy lists other entries")

    async def _read(self, name: str, worker: str) -> dict[str, str] | None:
        answer = await self._api.query(f"show map {_file(name)}", worker)
        lines = [line.split(" ", 2) for line in answer.splitlines() if line.startswith("0x")]
        if not lines and answer.strip():
            return None
        return {key: value for _, key, value in lines}


def _changes(before: BackendConfig | None, after: BackendConfig | None, *, verify_all: bool) -> Iterator[MapChange]:
    for name in MAPS:
        old, new = (backend.maps[name] if backend else {} for backend in (before, after))
        deleted = old.keys() - new.keys()
        changed = {key: value for key, value in new.items() if verify_all or old.get(key) != value}
        if deleted or changed:
            yield MapChange(name, changed, deleted)


def _file(name: str) -> str:
    return f"{RUN_DIRECTORY}/{name}.map"


def _batches(entries: Mapping[str, str]) -> Iterator[str]:
    """Return the entries as lines, in batches that HAProxy takes in one command."""
    batch = ""
    for key, value in entries.items():
        line = f"{key} {value}\n"
        if batch and len(batch) + len(line) > MAX_COMMAND_BYTES:
            yield batch
            batch = ""
        batch += line
    if batch:
        yield batch


def _escaped(word: str) -> str:
    """Escape a word of a command: blanks, `;` and the backslash are special to HAProxy."""
    return _SPECIAL.sub(r"\\\1", word)
