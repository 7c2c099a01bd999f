"""The gateway's directory of files.

Each file is replaced as a whole, so that HAProxy finds either the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.gateway.config.headers import SCRIPT, STRIP_COOKIES
from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.render import MAPS, HaproxyConfig
from services.routing.port import Endpoint, RoutedService, RoutingError

_NOTE = "#: "
_ANY_SUBNET = "0.0.0.0/0"
"""Subnet for files of a version that had no such setting.

The current settings differ from it, so such files are written again.
"""
_SETTINGS = TypeAdapter(GatewaySettings)
_SERVICE = TypeAdapter(RoutedService)
_ENDPOINT = TypeAdapter(Endpoint)
_STORED_AS = {"start_id": "start"}
"""Field of `Endpoint` → its name in the files, where the two differ."""
_FIELD_OF = {stored: name for name, stored in _STORED_AS.items()}


class ConfigFiles:
    """haproxy.cfg, its maps and the Lua script.

    The first lines of haproxy.cfg are comments that record the file's input.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._written: dict[str, str] = {}
        """File → its content, as far as this process has written it."""
        self._notes: dict[str, tuple[DesiredBackend, str]] = {}

    @property
    def config(self) -> Path:
        return self.directory / "haproxy.cfg"

    def write(self, rendered: HaproxyConfig, settings: GatewaySettings, backends: Iterable[DesiredBackend]) -> None:
        """Replace the maps and the script, then haproxy.cfg, which names them.

        Only files that have changed are written. Raises RoutingError if a file cannot be written: no file has changed then.
        """
        notes = [_note({"settings": _SETTINGS.dump_python(settings, mode="json")}), *map(self._note_of, backends)]
        files = {f"{name}.map": _map_text(entries) for name, entries in rendered.maps.items()}
        files |= {SCRIPT: STRIP_COOKIES, self.config.name: "\n".join([*notes, rendered.config])}
        changed = {name: text for name, text in files.items() if self._written.get(name) != text}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # HAProxy's workers are not root: they must be able to reach the socket for queued requests.
            self.directory.chmod(0o711)
            self._replace(changed)
        except OSError as error:
            raise _not_written(error) from error

    def read(self) -> tuple[GatewaySettings, list[DesiredBackend]] | None:
        """Return the input of the current file; None if there is none or if Sluice did not write it."""
        try:
            lines = self.config.read_text().splitlines()
            first, *rest = [json.loads(line.removeprefix(_NOTE)) for line in lines if line.startswith(_NOTE)]
            settings = _SETTINGS.validate_python({"subnet": _ANY_SUBNET, **first["settings"]})
            return settings, [_desired_backend(note) for note in rest]
        except (OSError, ValueError, LookupError, TypeError, ValidationError):
            return None

    @contextmanager
    def checkpoint(self) -> Iterator[Callable[[], None]]:
        """Yield a function that restores the present files, which needs no space on the disk.

        Raises RoutingError, as the function does.
        """
        written = dict(self._written)
        present = [name for name in _names(self.config.name) if (self.directory / name).exists()]

        def restore() -> None:
            try:
                for name in present:
                    self._old(name).replace(self.directory / name)
            except OSError as error:
                self.invalidate()
                raise _not_written(error) from error
            self._written = written

        try:
            self._link_old(present)
            yield restore
        finally:
            for name in present:
                self._old(name).unlink(missing_ok=True)

    def changed(self) -> list[str]:
        """Return the names of the files that another program changed since they were written."""
        return [name for name, text in self._written.items() if _text(self.directory / name) != text]

    def invalidate(self) -> None:
        """Make the next write write all files, because other programs may have changed or removed them."""
        self._written.clear()

    def _note_of(self, backend: DesiredBackend) -> str:
        cached, note = self._notes.get(backend.name, (None, ""))
        if cached is not backend:
            endpoints = [_split(_ENDPOINT, endpoint) for endpoint in backend.endpoints.values()]
            note = _note({"service": _split(_SERVICE, backend.service), "members": endpoints})
            self._notes[backend.name] = backend, note
        return note

    def _replace(self, files: Mapping[str, str]) -> None:
        """Write all files beside the current ones, then rename them in order: a full disk changes none."""
        try:
            for name, text in files.items():
                descriptor = os.open(self._new(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(text)
        except OSError:
            for name in files:
                with suppress(OSError):
                    self._new(name).unlink()
            raise
        for name, text in files.items():
            self._new(name).replace(self.directory / name)
            self._written[name] = text

    def _link_old(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                self._old(name).unlink(missing_ok=True)
                os.link(self.directory / name, self._old(name))
        except OSError as error:
            raise _not_written(error) from error

    def _new(self, name: str) -> Path:
        return self.directory / f".{name}.new"

    def _old(self, name: str) -> Path:
        return self.directory / f".{name}.old"


def _names(config: str) -> list[str]:
    return [config, SCRIPT, *(f"{name}.map" for name in MAPS)]


def _not_written(error: OSError) -> RoutingError:
    return RoutingError(f"The gateway's files cannot be written: {error}")


def _map_text(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _note(content: dict[str, Any]) -> str:
    return _NOTE + json.dumps(content, ensure_ascii=True)


def _desired_backend(note: dict[str, Any]) -> DesiredBackend:
    endpoints = [_join(_ENDPOINT, endpoint) for endpoint in note["members"]]
    return DesiredBackend(_join(_SERVICE, note["service"]), {endpoint.id: endpoint for endpoint in endpoints})


def _split(adapter: TypeAdapter[Any], value: RoutedService | Endpoint) -> dict[str, Any]:
    """Return the value as JSON, with the one field of a health check that is not part of the spec."""
    below = value.healthcheck is not None and value.healthcheck.any_below_500
    fields = {_STORED_AS.get(name, name): field for name, field in adapter.dump_python(value, mode="json").items()}
    return {"is": fields, "any_below_500": below}


def _join(adapter: TypeAdapter[Any], note: dict[str, Any]) -> Any:
    fields = {_FIELD_OF.get(name, name): field for name, field in note["is"].items()}
    check = fields.get("healthcheck")
    if check is not None:
        check["any_below_500"] = note["any_below_500"]
    return adapter.validate_python(fields)
