"""Desired backends of the gateway, rendered and written to its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.render import BackendConfig, HaproxyConfig, render, render_backend
from services.gateway.lifecycle.config_files import ConfigFiles
from services.gateway.lifecycle.port_check import ports_in_use
from services.routing.port import RoutedService, RoutingError

log = structlog.get_logger(__name__)


class ConfigState:
    """Desired backends and settings, the only source of the files.

    Every change is written to the files first: if that fails, memory and files are as before.
    """

    def __init__(self, directory: Path) -> None:
        self._files = ConfigFiles(directory)
        self._desired: Mapping[str, DesiredBackend] = {}
        self._settings: GatewaySettings | None = None
        self._rendered: dict[str, tuple[DesiredBackend, BackendConfig]] = {}
        """Cache: the rendering of each service's last backend."""

    @property
    def desired(self) -> Mapping[str, DesiredBackend]:
        """Service → its desired backend."""
        return self._desired

    @property
    def is_adopted(self) -> bool:
        """Whether `adopt` has succeeded: from then on the files are written from memory and not read."""
        return self._settings is not None

    @property
    def settings(self) -> GatewaySettings:
        if self._settings is None:
            raise RoutingError("The gateway is not configured: Sluice has not prepared its files yet")
        return self._settings

    def adopt(self, settings: GatewaySettings) -> HaproxyConfig | None:
        """Adopt the present files, and write them again if they have other settings than these.

        Returns the configuration that the files had; None if there were none. Raises RoutingError if the files cannot be
        written, or if they name another public port and the new one is in use. The old files then stay: a gateway that is
        restarted still serves with them.
        """
        found = self._files.read()
        if found is None:
            self._write({}, settings)
            return None
        old_settings, backends = found
        if old_settings.public_port != settings.public_port:
            _check_new_public_port(old_settings.public_port, settings.public_port)
        desired = {backend.name: backend for backend in backends}
        adopted = self.render(desired, old_settings)
        if old_settings == settings:
            self._desired, self._settings = desired, settings
            return adopted
        try:
            self.render(desired, settings)
        except RoutingError:
            # The adopted services conflict with the new settings. The callers that know these services publish them again.
            desired = {}
        self._write(desired, settings)
        return adopted

    def render(self, backends: Mapping[str, DesiredBackend], settings: GatewaySettings | None = None) -> HaproxyConfig:
        """Render these backends, with the current settings by default. Raises RoutingError if they conflict."""
        try:
            return render(settings or self.settings, map(self._render, backends.values()))
        except ValueError as error:
            raise RoutingError(str(error)) from error

    def backend_config(self, service: str) -> BackendConfig | None:
        """Return the service's part of the desired configuration; None if the service is not desired."""
        backend = self._desired.get(service)
        return self._render(backend) if backend is not None else None

    def backend_for(self, service: RoutedService) -> DesiredBackend:
        """Return a backend with these settings of the service and its current endpoints."""
        present = self._desired.get(service.name)
        return DesiredBackend(service, present.endpoints if present else {})

    def validate(self, service: RoutedService, pending: Iterable[RoutedService]) -> BackendConfig:
        """Return the service's part of a configuration with everything that is desired or pending.

        Raises RoutingError if the service conflicts with the others.
        """
        changed = {each.name: self.backend_for(each) for each in (*pending, service)}
        return self.render({**self._desired, **changed}).backends[service.name]

    def set_backend(self, backend: DesiredBackend) -> BackendConfig:
        """Set a service's desired backend.

        Raises RoutingError if the backend conflicts with the others or cannot be written; nothing has changed then.
        """
        return self.set_backends({**self._desired, backend.name: backend}).backends[backend.name]

    def remove_backend(self, service: str) -> None:
        """Remove a service's backend. Raises RoutingError; nothing has changed then."""
        self.set_backends({name: backend for name, backend in self._desired.items() if name != service})

    def set_backends(self, backends: Mapping[str, DesiredBackend]) -> HaproxyConfig:
        """Replace all desired backends. Raises RoutingError; nothing has changed then."""
        return self._write(backends, self.settings)

    def write_all(self, settings: GatewaySettings) -> HaproxyConfig:
        """Change the settings, and write all files, even those that should be up to date.

        Raises RoutingError; the settings are the old ones then.
        """
        self._files.invalidate()
        return self._write(self._desired, settings)

    @contextmanager
    def checkpoint(self) -> Iterator[Callable[[], None]]:
        """Yield a function that restores the current backends, settings and files.

        Raises RoutingError, as the function does.
        """
        desired, settings = self._desired, self._settings
        with self._files.checkpoint() as restore_files:

            def restore() -> None:
                self._desired, self._settings = desired, settings
                restore_files()

            yield restore

    def changed_files(self) -> list[str]:
        """Return the names of the files that another program changed or removed."""
        return self._files.changed()

    def _write(self, backends: Mapping[str, DesiredBackend], settings: GatewaySettings) -> HaproxyConfig:
        rendered = self.render(backends, settings)
        self._files.write(rendered, settings, [backends[name] for name in rendered.backends])
        self._desired, self._settings = backends, settings
        return rendered

    def _render(self, backend: DesiredBackend) -> BackendConfig:
        cached = self._rendered.get(backend.name)
        if cached is None or cached[0] is not backend:
            cached = self._rendered[backend.name] = backend, render_backend(backend)
        return cached[1]


def _check_new_public_port(before: int, now: int) -> None:
    busy = ports_in_use({("0.0.0.0", now)})  # noqa: S104 - the public port
    if busy:
        raise RoutingError(
            f"The gateway's public port cannot become {now}: {'; '.join(busy.values())}; "
            f"free it, or set SLUICE_GATEWAY_PORT back to {before}, at which a running gateway still serves"
        )
    log.warning("gateway_port_changes", before=before, now=now)
