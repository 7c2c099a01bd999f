"""Differences between the gateway's worker and its files that the doctor reports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.concurrency import ReadWriteLock
from services.gateway.config.render import MAPS
from services.gateway.lifecycle.drift import DriftDetector

pytestmark = pytest.mark.anyio
FILE_MAPS = {"checks": {"web-r2-1": "|/healthz"}, "routes": {"*/web/": "web"}}


async def found(worker: dict[str, dict[str, str]]) -> list[str]:
    """Return the differences between files that hold FILE_MAPS and a worker with these maps."""

    async def static_digest() -> str:
        return "same"

    async def all_servers() -> dict[str, Any]:
        return {}

    async def entries(name: str) -> dict[str, str]:
        return worker.get(name, {})

    rendered = SimpleNamespace(static_digest="same", maps={name: FILE_MAPS.get(name, {}) for name in MAPS})
    config: Any = SimpleNamespace(changed_files=list, render=lambda backends: rendered, desired={})
    reloader: Any = SimpleNamespace(loaded_digest=static_digest, lock=ReadWriteLock())
    servers: Any = SimpleNamespace(all=all_servers)
    maps: Any = SimpleNamespace(entries=entries)
    return await DriftDetector(config, reloader, servers, maps).compare()


async def test_checks_and_headers_of_removed_instances_are_no_drift() -> None:
    gone = {"web-r1-1": "|/healthz"}
    assert await found({**FILE_MAPS, "checks": FILE_MAPS["checks"] | gone, "headers": {"web-r1-1/A": "b"}}) == []


@pytest.mark.parametrize("checks", [{}, {"web-r2-1": "|/other"}])
async def test_missing_or_different_check_of_a_serving_instance_is_drift(checks: dict[str, str]) -> None:
    assert await found({**FILE_MAPS, "checks": checks}) == ["the worker's map checks differs from the file: web-r2-1"]


async def test_extra_route_is_drift() -> None:
    (reported,) = await found({**FILE_MAPS, "routes": FILE_MAPS["routes"] | {"*/old/": "old"}})
    assert "*/old/" in reported
