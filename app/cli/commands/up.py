"""sluice up and down: start Sluice as a container of this machine's Docker engine, or remove it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.cli.command import local_command
from app.cli.errors import NOT_SUCCEEDED, CliError, usage
from app.cli.output.console import Output

if TYPE_CHECKING:
    from app.settings import Settings
    from services.engine.infrastructure_port import ControlPlaneSpec
    from services.infrastructure.control_plane import ControlPlane

T = TypeVar("T")
HOST_DOCKER_CONFIG = "SLUICE_HOST_DOCKER_CONFIG"
"""Variable with the host's directory of the operator's Docker credentials.

scripts/sluice sets it, because that script runs this command in a container.
"""


@local_command
def up(out: Output) -> None:
    """Start or update Sluice and its gateway as containers that keep running.

    Settings come from the environment (SLUICE_…).
    """
    settings = _settings()
    _run(settings, out, lambda control_plane: control_plane.up())
    url, gateway = f"http://127.0.0.1:{settings.port}", f"http://127.0.0.1:{settings.gateway_port}"
    token_file = f"{_data(settings)}/admin.token"
    document = {"name": settings.name, "url": url, "gateway": gateway, "data": _data(settings), "token_file": token_file}
    out.result(document, f"Sluice runs at {url}, its gateway at {gateway}. The first admin token is in {token_file}.", url)


@local_command
def down(
    out: Output, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False
) -> None:
    """Remove this Sluice: containers, services, data, and the volumes and network that it made.

    Nothing else is removed.
    """
    settings = _settings()
    if not yes:
        typer.confirm(f'Remove the Sluice "{settings.name}", all its services and all its data?', abort=True, err=True)
    removed = _run(settings, out, lambda control_plane: control_plane.down())
    out.result({"removed": removed}, "\n".join(f"removed {line}" for line in removed) or "Nothing to remove.", "")


def _settings() -> Settings:
    from app.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        raise usage(str(error)) from error
    if ":" in str(settings.data) or settings.data.absolute() == Path("/"):
        raise usage(
            f"SLUICE_DATA={settings.data} cannot be mounted into a container",
            "Choose a directory other than / and without ':'.",
        )
    return settings


def _run(settings: Settings, out: Output, work: Callable[[ControlPlane], Awaitable[T]]) -> T:
    """Run `work` with this machine's engine. Raises CliError."""
    from services.engine.docker.control_plane import DockerControlPlane
    from services.engine.port import EngineError
    from services.infrastructure.control_plane import ControlPlane, ListenAddresses

    async def done() -> T:
        engine = DockerControlPlane(settings.name, base_url=settings.docker_host)
        addresses = ListenAddresses(settings.host, settings.port, settings.gateway_port)
        try:
            return await work(ControlPlane(engine, _spec(settings), addresses, out.say))
        finally:
            engine.close()

    try:
        return asyncio.run(done())
    except EngineError as error:
        raise CliError(str(error), exit_code=NOT_SUCCEEDED, document={"code": error.reason, "detail": str(error)}) from error


def _spec(settings: Settings) -> ControlPlaneSpec:
    from app.settings import Settings as Known
    from app.version import VERSION
    from services.engine.infrastructure_port import ControlPlaneSpec

    data = _data(settings)
    given = {f"SLUICE_{name.upper()}" for name in Known.model_fields} - {"SLUICE_DOCKER_HOST"}
    environment = {name: value for name, value in os.environ.items() if name in given and value}
    environment |= {
        "SLUICE_NAME": settings.name,
        "SLUICE_DATA": data,
        "SLUICE_HOST": settings.host,
        "SLUICE_PORT": str(settings.port),
        "SLUICE_GATEWAY_PORT": str(settings.gateway_port),
    }
    files = {}
    if config := os.environ.get("SLUICE_CONFIG"):
        path = str(Path(config).absolute())
        files[path] = environment["SLUICE_CONFIG"] = path
    if credentials := _credentials():
        files[credentials] = "/root/.docker"
    image = os.environ.get("SLUICE_IMAGE") or f"sluice:{VERSION}"
    return ControlPlaneSpec(image, data, _socket(settings), files, environment)


def _data(settings: Settings) -> str:
    """Return the data directory: as given, else by the name, so that two Sluices do not share one."""
    return str(settings.data.absolute()) if "data" in settings.model_fields_set else f"/var/lib/{settings.name}"


def _socket(settings: Settings) -> str:
    """Return the path of the engine's socket on the host.

    Raises CliError if the engine is on another host.
    """
    from services.engine.infrastructure_port import HOST_SOCKET_ENV

    if path := os.environ.get(HOST_SOCKET_ENV):
        return path
    where = settings.docker_host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not where.startswith("unix://"):
        raise usage(
            f"the engine at {where} is on another host", "Sluice must run on the engine's host: run this command there."
        )
    return where.removeprefix("unix://")


def _credentials() -> str | None:
    """Return the operator's ~/.docker on the host, None if it holds no credentials.

    The directory is mounted and not the file, because `docker login` replaces the file by a new one.
    """
    from services.engine.infrastructure_port import HOST_SOCKET_ENV

    if HOST_SOCKET_ENV in os.environ:
        return os.environ.get(HOST_DOCKER_CONFIG) or None
    directory = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser().absolute()
    return str(directory) if (directory / "config.json").is_file() else None
