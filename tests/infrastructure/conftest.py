"""Infrastructure on a fake engine, with a fake gateway whose sockets are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_gateway_process import FakeGatewayProcess
from tests.support.fakes.infrastructure import FakeInfrastructureEngine


@pytest.fixture
def engine() -> FakeInfrastructureEngine:
    return FakeInfrastructureEngine()


@pytest.fixture
def gateway(engine: FakeInfrastructureEngine, tmp_path: Path) -> FakeGatewayProcess:
    return FakeGatewayProcess(engine, tmp_path)
