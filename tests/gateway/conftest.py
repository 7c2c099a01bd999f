"""Fixtures of the gateway's tests: each test of the real gateway has a container of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.docker_cli import ROOT, build
from tests.support.gateway_fixture import IMAGE, GatewayFixture, real_gateway


@pytest.fixture(scope="session")
def image() -> str:
    build(IMAGE, ROOT / "services" / "gateway")
    return IMAGE


@pytest.fixture
async def gateway_fixture(image: str) -> AsyncIterator[GatewayFixture]:
    async with real_gateway() as place:
        yield place
