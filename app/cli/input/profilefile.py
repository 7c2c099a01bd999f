"""Profile files: `local.env`, `prod.env` of the shell scripts that preceded Sluice (docs/spring.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.errors import usage
from app.cli.input.envfile import read_env_file

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
SERVICE, COUNT, EXCLUDED = "APP_NAME", "INSTANCE_NUM", "EXCLUDED_PORTS"
PROFILE = "SPRING_PROFILE"
"""Variable by which the scripts pass the profile to a container.

Spring's own SPRING_PROFILES_ACTIVE is left to the file, because it would take precedence over the value that an
application gives to `spring.profiles.active`.
"""


@dataclass(frozen=True)
class ProfileFile:
    """A parsed profile file.

    `name`: the file's stem. `service` and `replicas`: None if the file does not name them. `layer`: fields of the spec.
    """

    name: str
    service: str | None
    replicas: int | None
    layer: dict[str, Any]


def read_profile_file(path: Path) -> ProfileFile:
    """Parse a profile file. Raises CliError with the line or the variable."""
    name = path.name.removeprefix(".env.").removesuffix(".env")
    if not _NAME.fullmatch(name):
        raise usage(f"invalid profile name: {path}", "The file's name is the profile's name: prod.env is prod.")
    environment = read_env_file(path, complete=True)
    service = environment.pop(SERVICE, None)
    count, excluded = environment.pop(COUNT, None), environment.pop(EXCLUDED, None)
    layer: dict[str, Any] = {"environment": {PROFILE: name, **environment}}
    replicas = None if count is None else _number(path, COUNT, count)
    if replicas is not None:
        layer["replicas"] = replicas
    if excluded is not None:
        ports = [_number(path, EXCLUDED, port) for port in re.split(r"[\s,]+", excluded) if port]
        layer["host_port"] = {"auto": True, "exclude": ports}
    return ProfileFile(name, service, replicas, layer)


def _number(path: Path, variable: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text.strip()):
        raise usage(f"{path}: {variable} must be numeric", "Examples: INSTANCE_NUM=3, EXCLUDED_PORTS=8080,3000.")
    return int(text)
