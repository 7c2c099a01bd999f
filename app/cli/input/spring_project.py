"""The sluice.yaml of a Spring Boot service, derived from its build file and profile files (`*.env`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import yaml
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from app.cli.input.profilefile import ProfileFile, read_profile_file

PORT = 8080
"""Spring Boot's default port."""
_GRADLE_NAME = re.compile(r"""rootProject\.name\s*=\s*['"]([^'"]+)['"]""")
_BUILD_FILES = ("pom.xml", "build.gradle", "build.gradle.kts")


@dataclass(frozen=True)
class SpringService:
    """Facts about a Spring Boot service.

    `name`: its name in the build or profile files, None if they have none. `lacks_actuator`: the build file that does not
    name the actuator, None if one does.
    """

    name: str | None
    profiles: list[ProfileFile]
    lacks_actuator: str | None


def look_at(directory: Path) -> SpringService:
    """Return the known facts about the service. Raises CliError if a profile file cannot be read."""
    files = [read_profile_file(path) for path in sorted(directory.glob("*.env")) if path.stem not in ("", ".env")]
    profiles = [file for file in files if file.service or file.replicas is not None]
    named = [file.service for file in profiles if file.service]
    texts = {name: text for name in _BUILD_FILES if (text := _read(directory / name)) is not None}
    lacking = next((name for name in texts if not any("actuator" in text for text in texts.values())), None)
    return SpringService(named[0] if named else _built_as(directory, texts), profiles, lacking)


def spring_spec(name: str, source: str, port: int, profiles: list[ProfileFile]) -> str:
    """Return the text of sluice.yaml; `source` is its line with `build` or `image`.

    The profiles' variables are named and not copied: they may be secret, and this file is not.
    """
    values = {
        "NAME": name,
        "SOURCE": source,
        "PORT": str(port),
        "HOST_PORT": _host_port(profiles),
        "PROFILES": _layers(profiles),
    }
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], _SPEC)


def _built_as(directory: Path, texts: dict[str, str]) -> str | None:
    for settings in ("settings.gradle", "settings.gradle.kts"):
        if found := _GRADLE_NAME.search(_read(directory / settings) or ""):
            return found[1]
    try:
        project = fromstring(texts.get("pom.xml", "<project/>"))
    except (ParseError, DefusedXmlException):
        return None
    return next((child.text for child in project if child.tag.rpartition("}")[2] == "artifactId"), None)


def _host_port(profiles: list[ProfileFile]) -> str:
    drawn = [file.layer["host_port"]["exclude"] for file in profiles if "host_port" in file.layer]
    if not drawn:
        return _NO_HOST_PORT
    return f"{_HOST_PORT}host_port: {{auto: true, exclude: {sorted({port for ports in drawn for port in ports})}}}\n"


def _layers(profiles: list[ProfileFile]) -> str:
    if not profiles:
        return _NO_PROFILES
    lines = ["profiles:"]
    for file in profiles:
        environment = file.layer["environment"]
        layer = {"environment": {"SPRING_PROFILE": environment.pop("SPRING_PROFILE")}}
        said = {"replicas": file.replicas, **layer} if file.replicas is not None else layer
        more = f"    # also from the file: {', '.join(environment)}" if environment else ""
        text = yaml.safe_dump({file.name: said}, default_flow_style=None, sort_keys=False, width=1000)
        lines += [f"  {line}" for line in text.splitlines()] + ([more] if more else [])
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


_NO_PROFILES = """\
replicas: 2            # with two or more, the loss of one loses no GET

# profiles:
#   prod: {replicas: 3, environment: {SPRING_PROFILE: prod}}
"""

_HOST_PORT = """\
# Publishes each instance on a free host port (SERVER_PORT), except those listed, as the scripts did. The gateway and other
# services do not need it; remove it unless clients call those ports directly.
"""

_NO_HOST_PORT = """\
# host_port: {auto: true, exclude: [8080, 3000]}   # also publish each instance on a free host port (SERVER_PORT)
"""

_SPEC = """\
# A Spring Boot service for Sluice; docs/spring.md explains each line. Deploy it with:
#   sluice deploy                               `build: .` builds the Dockerfile, `image` is a local or pullable image
#   sluice deploy --profile-file prod.env       like `deploy.sh prod`
# The file is the complete spec: a field that is removed from it returns to its default.

service: @NAME@
@SOURCE@
port: @PORT@             # server.port

routes:                # public routes through the gateway; without any, only other services and Eureka consumers can call it
  - path_prefix: /@NAME@
    strip_prefix: true # like RewritePath: the application sees / instead of /@NAME@

healthcheck:           # of each instance, from spring-boot-starter-actuator
  path: /actuator/health
  expect_json: {status: UP}  # fields that the answer must have; others are ignored
  timeout: 5
  start_period: 180    # seconds that a JVM may take to start; an instance serves as soon as it is ready

# After SIGTERM Boot finishes its requests, for spring.lifecycle.timeout-per-shutdown-phase (30 s); SIGKILL follows after
# this grace period. Needs server.shutdown=graceful, the default since Boot 3.4.
stop_grace_period: 40

@HOST_PORT@
# advertise: instances # what consumers of Sluice's Eureka registry see. Default: one address that is never stale
# eureka: {url: "http://10.0.0.5:8761/eureka/"}   # keep using your own Eureka server

# Profiles override the fields above: sluice deploy --profile prod, or --profile-file prod.env for a profile in a file.
@PROFILES@"""
