"""Conversion of the engine's JSON of an image (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker.utils import parse_repository_tag

from services.engine.docker.codec import NANOSECONDS
from services.engine.port import ImageInfo


def parse_image(found: Mapping[str, Any], reference: str) -> ImageInfo:
    """Parse the inspection of an image. Only TCP ports count as exposed."""
    config = found.get("Config") or {}
    ports = (port.partition("/") for port in config.get("ExposedPorts") or {})
    check = config.get("Healthcheck") or {}
    test = tuple(check.get("Test") or ())
    times = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
    settings = {name: check[key] / NANOSECONDS for name, key in times.items() if check.get(key)}
    if check.get("Retries"):
        settings["retries"] = check["Retries"]
    usable = bool(test) and test[0] != "NONE"
    return ImageInfo(
        id=found["Id"],
        reference=reference,
        exposed_ports=tuple(sorted(int(number) for number, _, kind in ports if kind in ("", "tcp"))),
        healthcheck=test if usable else None,
        healthcheck_settings=settings if usable else {},
        on_build=tuple(config.get("OnBuild") or ()),
        volumes=tuple(sorted(config.get("Volumes") or ())),
        digest=digest_in(found, reference),
    )


def digest_in(found: Mapping[str, Any], reference: str) -> str | None:
    """Return the image's `repository@sha256:…` in the repository of `reference`, None if not pulled."""
    repository = f"{_familiar(parse_repository_tag(reference)[0])}@"
    return next((digest for digest in found.get("RepoDigests") or () if digest.startswith(repository)), None)


def _familiar(repository: str) -> str:
    """Return a repository name as the engine lists it: without Docker Hub's prefixes."""
    return repository.removeprefix("index.").removeprefix("docker.io/").removeprefix("library/")
