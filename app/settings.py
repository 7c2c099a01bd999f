"""The operator's settings, from the environment (SLUICE_…) or the file that SLUICE_CONFIG names.

The environment takes precedence.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.version import VERSION
from services.gateway.runtime.takeover import MAX_SOCKET_NAME_LENGTH
from services.outbound import AllowedServer
from services.rollouts.requests.spec_errors import humanize
from services.units import parse_duration, parse_size

PREFIX = "SLUICE_"
LONGEST_DATA = 107 - len("/gateway/") - MAX_SOCKET_NAME_LENGTH
"""Maximum bytes of the data directory's path.

The kernel limits the path of a UNIX socket to 107 bytes (unix(7)), and the gateway's sockets are in that directory.
"""


class SettingsError(Exception):
    """Unusable settings, one line each: the variable, the problem and the values it takes."""


def _listed(value: Any) -> Any:
    """Split `a, b` from an environment variable; return a list from a file unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _private_subnet(value: str) -> str:
    network = ipaddress.IPv4Network(value)
    if not 16 <= network.prefixlen <= 28:
        raise ValueError("must be a /16 to a /28")
    return str(network)


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value, strict=False))


def _root(value: str) -> str:
    path = Path(value)
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError('must be absolute and without ".."')
    return str(path)


def _profiles(value: Any) -> Any:
    """Parse JSON from an environment variable; return a table from a file unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a JSON object") from None


def _profile_name(value: str) -> str:
    if value in ENGINE_LOG_DRIVERS:
        raise ValueError(f'"{value}" is a driver of the engine; choose another profile name')
    return value


def _server(value: str) -> str:
    AllowedServer.parse(value)
    return value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


ENGINE_LOG_DRIVERS = frozenset({
    "awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "logentries", "none", "splunk",
    "syslog",
})  # fmt: skip
"""Names of engine drivers, which mean that driver in every spec; a profile must not have such a name."""
Port = Annotated[int, Field(ge=1, le=65535)]
_Address = Annotated[str, AfterValidator(lambda value: str(ipaddress.ip_address(value)))]


class LogProfile(BaseModel):
    """A log driver of the engine with all its options, for specs that name the profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,255}$")]
    options: dict[str, str] = Field(default_factory=dict)


_ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$"), AfterValidator(_profile_name)]


class Settings(BaseSettings):
    """The operator's settings, frozen.

    The description of a field says what its variable takes, and ends the error for a bad value.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", case_sensitive=False)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,29}[a-z0-9]$")] = Field(
        default="sluice", description="2 to 31 lower-case letters, digits and '-': name of this Sluice on its engine"
    )
    data: Path = Field(
        default=Path("/var/lib/sluice"), description="the directory for database, keys and the gateway's files"
    )
    host: _Address = Field(default="127.0.0.1", description="the IP address that the API listens on")
    port: Port = Field(default=7080, description="the API's port, 1 to 65535")
    gateway_port: Port = Field(default=8080, description="the gateway's public port, 1 to 65535")
    gateway_image: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        default=f"sluice-gateway:{VERSION}", description="the gateway's image"
    )
    public_host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:\[\]-]{1,253}$")] = Field(
        default="127.0.0.1", description="the host under which users reach the gateway, for displayed URLs"
    )
    subnet: Annotated[str, AfterValidator(_private_subnet)] | None = Field(
        default=None, description="the instances' IPv4 network, such as 10.203.0.0/22; default: a free one"
    )
    default_route: (
        Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9\-._~/]*(\{name\})?[A-Za-z0-9\-._~/]*$")] | None
    ) = Field(default=None, description="the path prefix for services that name no routes, such as /{name}")
    trusted_proxies: Annotated[list[Annotated[str, AfterValidator(_network)]], NoDecode, BeforeValidator(_listed)] = Field(
        default_factory=list, description="addresses or networks, comma-separated, whose X-Forwarded headers are trusted"
    )
    host_roots: Annotated[list[Annotated[str, AfterValidator(_root)]], NoDecode, BeforeValidator(_listed)] = Field(
        default_factory=list, description="absolute paths, comma-separated, under which services may mount host directories"
    )
    log_drivers: Annotated[dict[_ProfileName, LogProfile], NoDecode, BeforeValidator(_profiles)] = Field(
        default_factory=dict,
        description="log drivers that services may name, as JSON: name → {driver, options}, none of a driver's own name",
    )
    keep_net_raw: bool = Field(default=False, description="true: instances keep the capability NET_RAW (raw sockets)")
    maxconn: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        default=8000, description="maximum number of connections of the gateway, 100 to 1000000"
    )
    max_body_size: Annotated[int, BeforeValidator(lambda value: parse_size(_number(value))), Field(ge=1024, le=2**50)] = (
        Field(default=1024**3, description="maximum size of a request body at the gateway, in bytes or such as 100m")
    )
    eureka_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8761, description="the Eureka registry's port at the address of the instances' network, 0 for none"
    )
    eureka_host: Annotated[list[_Address], NoDecode, BeforeValidator(_listed)] = Field(
        default_factory=list, description="additional IP addresses, comma-separated, of the Eureka registry"
    )
    eureka_aliases: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]],
        NoDecode,
        BeforeValidator(_listed),
    ] = Field(
        default_factory=list, description="host names, comma-separated, under which instances find the Eureka registry"
    )
    eureka_servers: Annotated[list[Annotated[str, AfterValidator(_server)]], NoDecode, BeforeValidator(_listed)] = Field(
        default_factory=list,
        description="URL prefixes or host[:port], comma-separated, of the Eureka servers that specs may name in eureka.url",
    )
    eureka_auth: bool = Field(default=False, description="true: the Eureka registry requires a token as password")
    build_timeout: Annotated[
        float, BeforeValidator(lambda value: parse_duration(_number(value))), Field(ge=1, le=86_400)
    ] = Field(default=1800.0, description="maximum duration of a build, in seconds or such as 30m")
    build_context_size: Annotated[
        int, BeforeValidator(lambda value: parse_size(_number(value))), Field(ge=1024, le=2**50)
    ] = Field(default=1024**3, description="maximum size of a build context, packed or unpacked, in bytes or such as 100m")
    build_network: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] = Field(
        default="default",
        description="the network that the `RUN` steps of a build run in: default, none, host, or one of the engine's",
    )
    log_format: Literal["json", "console"] = Field(default="json", description="json or console")
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)
    ] = Field(default="info", description="debug, info, warning or error")
    gateway_log_all: bool = Field(default=False, description="true: the gateway logs every request, not only failed ones")
    docker_host: Annotated[str, StringConstraints(pattern=r"^(unix|tcp|http)://[^\x00-\x20]{1,512}$")] | None = Field(
        default=None, description="the engine, such as unix:///var/run/docker.sock; default: DOCKER_HOST"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = cast(EnvSettingsSource, env_settings)
        environment.env_vars = {key: value for key, value in environment.env_vars.items() if value != ""}
        path = os.environ.get(f"{PREFIX}CONFIG")
        if not path:
            return init_settings, environment
        return init_settings, environment, _file(settings_cls, Path(path))


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _file(settings: type[BaseSettings], path: Path) -> PydanticBaseSettingsSource:
    """Return a TOML source if the file name ends in `.toml`, else a source of SLUICE_NAME=value lines.

    Raises SettingsError if the file cannot be read or parsed.
    """
    try:
        path.read_bytes()
        if path.suffix == ".toml":
            return TomlConfigSettingsSource(settings, path)
        return DotEnvSettingsSource(settings, env_file=path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{PREFIX}CONFIG={path}: {error}; use a TOML file or a file of {PREFIX}NAME=value lines"
        ) from error


def load_settings(**given: Any) -> Settings:
    """Return the settings from `given` (first), the environment and the file.

    Raises SettingsError that names every bad value.
    """
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(dict(problem)) for problem in error.errors())) from error
    if (length := len(os.fsencode(settings.data.absolute()))) > LONGEST_DATA:
        why = f"its path has {length} bytes, too long for the gateway's sockets in it"
        raise SettingsError(f"{PREFIX}DATA={settings.data}: {why}; use a directory whose path has at most {LONGEST_DATA}")
    return settings


def _line(problem: Mapping[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = Settings.model_fields.get(name.lower().removeprefix(PREFIX.lower()))
    variable = PREFIX + name.upper().removeprefix(PREFIX)
    if field is None:
        known = ", ".join(sorted(PREFIX + known.upper() for known in Settings.model_fields))
        return f"{variable}: unknown setting; known: {known}"
    shown = repr(problem["input"]) if name.lower() != "log_drivers" else "…"  # its options may be credentials
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    why = humanize(problem)
    within = ".".join(str(part) for part in problem["loc"][1:]) if name.lower() == "log_drivers" else ""
    why = f"{within}: {why}" if within else f"{why[0].lower()}{why[1:]}"
    return f"{variable}={shown}: {why}; expected: {field.description}"
