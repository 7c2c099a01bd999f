"""The gateway's directory of files.

Each file is replaced as a whole, so that HAProxy finds either the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.gateway.config.headers import SCRIPT, STRIP_COOKIES
from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.render import MAPS, HaproxyConfig
from services.routing.port import Endpoint, RoutedService, RoutingError

_NOTE = "#: "
_ANY = "0.0.0.0/0"
"""Subnet for files of a version that had no such setting.

The present settings differ from it, so such files are written again.
"""
_SETTINGS = TypeAdapter(GatewaySettings)
_SERVICE = TypeAdapter(RoutedService)
_ENDPOINT = TypeAdapter(Endpoint)
_STORED_AS = {"start_id": "start"}
"""Field of `Endpoint` → its name in the files, where the two differ."""
_FIELD_OF = {stored: name for name, stored in _STORED_AS.items()}


class Files:
    """haproxy.cfg, its maps and the Lua script.

    The first lines of haproxy.cfg are comments that record the file's input.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._written: dict[str, str] = {}
        self._notes: dict[str, tuple[DesiredBackend, str]] = {}

    @property
    def config(self) -> Path:
        return self.directory / "haproxy.cfg"

    def write(self, rendered: HaproxyConfig, settings: GatewaySettings, services: Iterable[DesiredBackend]) -> None:
        """Write the maps and the script, then haproxy.cfg, which names them.

        Only files that have changed are written. Raises RoutingError if a file cannot be written.
        """
        notes = [_header({"settings": _SETTINGS.dump_python(settings, mode="json")}), *map(self._header_of, services)]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # HAProxy's workers are not root: they must be able to reach the socket for queued requests.
            self.directory.chmod(0o711)
            for name, entries in rendered.maps.items():
                self._put(f"{name}.map", "".join(f"{key} {value}\n" for key, value in entries.items()))
            self._put(SCRIPT, STRIP_COOKIES)
            self._put(self.config.name, "\n".join([*notes, rendered.config]))
        except OSError as error:
            raise RoutingError(f"The gateway's files cannot be written: {error}") from error

    def read(self) -> tuple[GatewaySettings, list[DesiredBackend]] | None:
        """Return the input of the present file; None if there is none or if Sluice did not write it."""
        try:
            lines = self.config.read_text().splitlines()
            first, *rest = [json.loads(line.removeprefix(_NOTE)) for line in lines if line.startswith(_NOTE)]
            return _SETTINGS.validate_python({"subnet": _ANY, **first["settings"]}), [
                _desired_backend(note) for note in rest
            ]
        except (OSError, ValueError, LookupError, TypeError, ValidationError):
            return None

    def written(self) -> dict[str, str]:
        """Return the content of all present files, for `restore`."""
        names = [self.config.name, SCRIPT, *(f"{name}.map" for name in MAPS)]
        return {name: (self.directory / name).read_text() for name in names if (self.directory / name).exists()}

    def restore(self, files: dict[str, str]) -> None:
        """Write back files that `written` returned."""
        for name, text in files.items():
            self._put(name, text)

    def changed(self) -> list[str]:
        """Return the names of the files that another program changed since they were written."""
        return [name for name, text in self._written.items() if _text(self.directory / name) != text]

    def invalidate(self) -> None:
        """Make the next write write all files, because other programs may have changed or removed them."""
        self._written.clear()

    def _header_of(self, wanted: DesiredBackend) -> str:
        known, note = self._notes.get(wanted.name, (None, ""))
        if known is not wanted:
            endpoints = [_split(_ENDPOINT, endpoint) for endpoint in wanted.endpoints.values()]
            note = _header({"service": _split(_SERVICE, wanted.service), "members": endpoints})
            self._notes[wanted.name] = wanted, note
        return note

    def _put(self, name: str, text: str) -> None:
        if self._written.get(name) == text:
            return
        new = self.directory / f".{name}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        new.replace(self.directory / name)
        self._written[name] = text


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _header(content: dict[str, Any]) -> str:
    return _NOTE + json.dumps(content, ensure_ascii=True)


def _desired_backend(note: dict[str, Any]) -> DesiredBackend:
    endpoints = [_join(_ENDPOINT, endpoint) for endpoint in note["members"]]
    return DesiredBackend(_join(_SERVICE, note["service"]), {endpoint.id: endpoint for endpoint in endpoints})


def _split(adapter: TypeAdapter[Any], value: RoutedService | Endpoint) -> dict[str, Any]:
    """Return the value as JSON, with the one field of a health check that is not part of the spec."""
    below = value.healthcheck is not None and value.healthcheck.any_below_500
    fields = {_STORED_AS.get(name, name): it for name, it in adapter.dump_python(value, mode="json").items()}
    return {"is": fields, "any_below_500": below}


def _join(adapter: TypeAdapter[Any], note: dict[str, Any]) -> Any:
    check = note["is"].get("healthcheck")
    if check is not None:
        check["any_below_500"] = note["any_below_500"]
    return adapter.validate_python({_FIELD_OF.get(name, name): it for name, it in note["is"].items()})
