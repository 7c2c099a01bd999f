"""Helpers of tests that parse a Compose file in one line."""

from __future__ import annotations

from collections.abc import Set
from textwrap import dedent
from typing import Any

import pytest

from services.compose.document import ComposeError, ComposeFinding
from services.compose.reader import ComposeOptions, ComposeProject, read
from services.compose.service import ComposeService


def reading(text: str, *, known: Set[str] = frozenset(), running: Set[str] = frozenset(), **given: Any) -> ComposeProject:
    made = read(dedent(text), ComposeOptions(**{"project": "shop", **given}))
    made.connect(known, running)
    return made


def service(body: str, **given: Any) -> ComposeService:
    """Parse a file whose only service is `web`, with these keys beside its image (lines count from 4)."""
    return reading(_file(body), **given).services[0]


def refused(text: str, **given: Any) -> list[tuple[str, int, str]]:
    """Return (field, line, message) of every refusal."""
    with pytest.raises(ComposeError) as raised:
        reading(text, **given)
    return [(finding.field, finding.line, finding.message) for finding in raised.value.findings]


def complaint(body: str, **given: Any) -> tuple[str, int, str]:
    """Return the only refusal of a service with these keys."""
    (found,) = refused(_file(body), **given)
    return found


def said(findings: list[ComposeFinding]) -> list[tuple[str, int]]:
    return [(finding.field, finding.line) for finding in findings]


def _file(body: str) -> str:
    lines = [f"    {line}" for line in dedent(body).strip("\n").splitlines()]
    return "\n".join(["services:", "  web:", "    image: web:1", *lines, "volumes: {data: }"])
