"""What is asked of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class BuildRequest:
    """`context`: the upload, a checked tar in the builds' directory; `text`: its Dockerfile, checked as well."""

    service: str
    context: Path
    text: str
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
