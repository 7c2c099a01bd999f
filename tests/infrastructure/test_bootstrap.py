"""Infrastructure in order: the network, the gateway's file, its container, its first answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.engine.infrastructure_port import GatewaySpec, NetworkInfo
from services.engine.port import EngineError
from services.gateway.config.model import GatewaySettings
from services.infrastructure.bootstrap import Infrastructure, InfrastructureSettings
from services.routing.port import RoutingError
from tests.support.fake_gateway_process import FakeGatewayProcess
from tests.support.fakes.infrastructure import FakeInfrastructureEngine

pytestmark = pytest.mark.anyio


def unresponsive(gateway: FakeGatewayProcess, times: int) -> FakeGatewayProcess:
    gateway.unanswered = times
    return gateway


SETTINGS = InfrastructureSettings(
    data=Path("/srv/sluice"),
    gateway_image="sluice-gateway:1",
    subnet="10.9.0.0/22",
    gateway_port=8888,
    maxconn=500,
    max_body=1000,
    trusted_proxies=("192.0.2.0/24",),
    log_all=True,
)


async def test_infrastructure_is_created_in_order_of_dependency(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    assert await Infrastructure(engine, gateway, SETTINGS).ensure() == NetworkInfo("10.9.0.0/22", "10.203.0.1")
    assert engine.calls == ["ensure_network", "inspect_gateways", "configure", "ensure_gateway", "status"]
    assert gateway.configured == [
        GatewaySettings(
            bridge_address="10.203.0.1",
            subnet="10.9.0.0/22",
            public_port=8888,
            maxconn=500,
            max_body=1000,
            trusted_proxies=("192.0.2.0/24",),
            log_all=True,
        )
    ]
    assert engine.spec == GatewaySpec("sluice-gateway:1", "/srv/sluice/gateway", open_files=5000)


async def test_missing_network_is_created_again_with_its_subnet(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = Infrastructure(engine, gateway, replace(SETTINGS, subnet=None))
    before = await infrastructure.ensure()
    assert await infrastructure.check_network() == {}
    engine.network, engine.free_subnet = None, "10.77.0.0/22"
    with pytest.raises(EngineError, match="network is missing"):
        await infrastructure.check_network()
    assert await infrastructure.wait_until_degraded() == "network"
    assert await infrastructure.ensure() == before == engine.network


async def test_bootstrap_waits_for_the_gateways_first_answer(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    await Infrastructure(engine, unresponsive(gateway, 3), SETTINGS).ensure()
    assert engine.calls.count("status") == 4


async def test_gateway_that_never_answers_is_reported_with_its_log(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    engine.log = "cannot bind socket (Address already in use) [0.0.0.0:8888]\n"
    with pytest.raises(RoutingError, match=r"does not answer within 0\.1 s(.|\n)*Address already in use"):
        await Infrastructure(engine, unresponsive(gateway, 10_000), SETTINGS, timeout=0.1).ensure()


async def test_gateway_that_exits_at_every_start_is_not_waited_for(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    engine.failing = True
    with pytest.raises(RoutingError, match="exits at every start, and it logged nothing"):
        await Infrastructure(engine, unresponsive(gateway, 10_000), SETTINGS).ensure()
    assert engine.calls.count("inspect_gateway") == 3


async def test_gateway_that_exits_at_every_start_is_started_without_services_whose_ports_are_in_use(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    engine.failing = True
    gateway.unbindable = ["web"]
    with capture_logs() as logged:
        assert await Infrastructure(engine, unresponsive(gateway, 10_000), SETTINGS).ensure()
    assert [each["services"] for each in logged if each["event"] == "gateway_without_services"] == [["web"]]


async def test_hung_gateway_is_restarted(engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess) -> None:
    infrastructure = Infrastructure(engine, gateway, SETTINGS)
    await infrastructure.ensure()
    gateway.hung = True
    assert await infrastructure.ensure()
    assert engine.calls.count("restart_gateway") == 1


async def test_slow_gateway_is_not_restarted(engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess) -> None:
    await Infrastructure(engine, gateway, SETTINGS).ensure()
    assert await Infrastructure(engine, unresponsive(gateway, 5), SETTINGS).ensure()
    assert "restart_gateway" not in engine.calls


async def test_outdated_gateway_keeps_serving(engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess) -> None:
    engine.outdated = True
    assert await Infrastructure(engine, gateway, SETTINGS).ensure()


async def test_engine_error_is_raised(engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess) -> None:
    engine.fails = EngineError("a network of that name is there")
    with pytest.raises(EngineError, match="of that name"):
        await Infrastructure(engine, gateway, SETTINGS).ensure()
