"""The ground: network first, then the gateway's file, then its container, then its first answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.engine.port import EngineError, Footing, GatewaySpec
from services.gateway.model import GatewaySettings
from services.ground.ground import Ground, GroundSettings
from services.routing.port import RoutingError
from tests.fakes.ground import FakeGroundEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Standing:
    """A gateway that answers when it has been asked `deaf` times."""

    def __init__(self, engine: FakeGroundEngine, deaf: int = 0) -> None:
        self.engine = engine
        self.deaf = deaf
        self.stood_on: list[GatewaySettings] = []

    async def stand_on(self, settings: GatewaySettings) -> None:
        self.engine.calls.append("stand_on")
        self.stood_on.append(settings)

    async def answers(self) -> dict[str, Any] | None:
        self.engine.calls.append("answers")
        self.deaf -= 1
        return {"version": "3.0"} if self.deaf < 0 else None


SETTINGS = GroundSettings(
    data=Path("/srv/sluice"),
    gateway_image="sluice-gateway:1",
    subnet="10.9.0.0/22",
    gateway_port=8888,
    maxconn=500,
    max_body=1000,
    trusted_proxies=("192.0.2.0/24",),
    log_all=True,
)


async def test_each_part_stands_on_the_one_before() -> None:
    engine = FakeGroundEngine()
    gateway = Standing(engine)
    assert await Ground(engine, gateway, SETTINGS).prepare() == Footing("10.9.0.0/22", "10.203.0.1")
    assert engine.calls == ["make_network", "stand_on", "make_gateway", "answers"]
    assert gateway.stood_on == [
        GatewaySettings(
            bridge_address="10.203.0.1",
            public_port=8888,
            maxconn=500,
            max_body=1000,
            trusted_proxies=("192.0.2.0/24",),
            log_all=True,
        )
    ]
    assert engine.spec == GatewaySpec("sluice-gateway:1", "/srv/sluice/gateway", open_files=5000)


async def test_it_waits_for_the_first_answer() -> None:
    engine = FakeGroundEngine()
    await Ground(engine, Standing(engine, deaf=3), SETTINGS).prepare()
    assert engine.calls.count("answers") == 4


async def test_a_gateway_that_never_answers_is_told_with_its_log() -> None:
    engine = FakeGroundEngine()
    engine.log = "cannot bind socket (Address already in use) [0.0.0.0:8888]\n"
    with pytest.raises(RoutingError, match=r"does not answer within 0\.1 s(.|\n)*Address already in use"):
        await Ground(engine, Standing(engine, deaf=10_000), SETTINGS, patience=0.1).prepare()


async def test_a_gateway_that_exits_at_every_start_is_not_waited_for() -> None:
    engine = FakeGroundEngine()
    engine.failing = True
    with pytest.raises(RoutingError, match="exits at every start, and has written nothing"):
        await Ground(engine, Standing(engine, deaf=10_000), SETTINGS).prepare()
    assert engine.calls.count("see_gateway") == 3


async def test_an_outdated_gateway_goes_on_serving() -> None:
    engine = FakeGroundEngine()
    engine.outdated = True
    assert await Ground(engine, Standing(engine), SETTINGS).prepare()


async def test_an_engine_that_refuses_is_told() -> None:
    engine = FakeGroundEngine()
    engine.fails = EngineError("a network of that name is there")
    with pytest.raises(EngineError, match="of that name"):
        await Ground(engine, Standing(engine), SETTINGS).prepare()
