"""A ground whose engine is a fake, and a gateway of which only the sockets are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_gateway_process import FakeGatewayProcess
from tests.support.fakes.infrastructure import FakeGroundEngine


@pytest.fixture
def engine() -> FakeGroundEngine:
    return FakeGroundEngine()


@pytest.fixture
def gateway(engine: FakeGroundEngine, tmp_path: Path) -> FakeGatewayProcess:
    return FakeGatewayProcess(engine, tmp_path)
