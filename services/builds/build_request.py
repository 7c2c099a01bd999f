"""Parameters of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class BuildRequest:
    """A build to run. `context`: the uploaded, checked tar; `text`: its checked Dockerfile.

    The tar lies in the builds' directory.
    """

    service: str
    context: Path
    text: str
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
