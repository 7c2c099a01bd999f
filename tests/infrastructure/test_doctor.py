"""The doctor's findings and advice; a part that cannot be examined hides no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.engine.infrastructure_port import NetworkInfo
from services.engine.port import EngineError
from services.infrastructure.doctor import Doctor, GatewayContainer
from services.infrastructure.doctor_findings import DoctorFinding
from services.infrastructure.host_checks import DISK_ERROR_BYTES, DISK_WARNING_BYTES, disk_finding
from services.routing.port import RoutingError
from services.store.database import Store
from services.store.events import append_event
from services.store.open import open_store
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.infrastructure import FakeContainer, FakeInfrastructureEngine

pytestmark = pytest.mark.anyio


class Engine(FakeInfrastructureEngine):
    """Fake engine whose bridge is this machine's loopback and whose containers really connect."""

    def __init__(self) -> None:
        super().__init__()
        self.present = FakeContainer("c" * 64)
        self.network: NetworkInfo | None = NetworkInfo("127.0.0.0/8", "127.0.0.1")

    async def inspect_network(self) -> NetworkInfo | None:
        if self.fails is not None:
            raise self.fails
        return self.network

    async def check_reachable(self, image: str, address: str, port: int) -> str | None:
        if self.unreachable is None:
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            await writer.wait_closed()
        return self.unreachable


class Gateway:
    def __init__(self) -> None:
        self.facts: dict[str, Any] | None = {"version": "3.0.11", "uptime": 7200, "connections": 3, "maxconn": 8000}
        self.different: list[str] = []
        self.fails: RoutingError | None = None
        self.bridge_port: int | None = 20001

    async def status(self) -> dict[str, Any] | None:
        return self.facts

    async def find_drift(self) -> list[str]:
        if self.fails is not None:
            raise self.fails
        return self.different


class DoctorHarness:
    """A doctor and all that it examines, healthy at first."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = FakeClock()
        self.engine, self.gateway = Engine(), Gateway()
        self.version: Mapping[str, Any] = {"version": "27.0", "api_version": "1.46"}
        self.outdated: str | None = None
        self.unknown_containers: list[str] = []
        self.not_ready: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    async def findings(self) -> dict[str, DoctorFinding]:
        doctor = Doctor(
            self.engine,
            self.gateway,
            self.store,
            self.clock,
            GatewayContainer("sluice-gateway", "gateway:1"),
            self._ping,
            self._refusals,
        )
        found = await doctor.diagnose(
            outdated=self.outdated, unknown_containers=self.unknown_containers, not_ready=self.not_ready
        )
        assert all(finding.advice for finding in found if finding.status != "ok")
        return {finding.part: finding for finding in found}

    async def unwell(self) -> dict[str, DoctorFinding]:
        """Return the findings that are not ok, except this machine's clock."""
        return {part: each for part, each in (await self.findings()).items() if each.status != "ok" and part != "clock"}

    async def _refusals(self) -> Mapping[str, str]:
        return self.refused

    async def _ping(self) -> Mapping[str, Any]:
        if self.engine.fails is not None:
            raise self.engine.fails
        return self.version


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DoctorHarness]:
    store = open_store(tmp_path)
    yield DoctorHarness(store)
    store.close()


async def test_doctor_has_no_advice_for_a_healthy_installation(harness: DoctorHarness) -> None:
    assert await harness.unwell() == {}
    assert {"engine", "network", "firewall", "gateway", "gateway's file", "old workers", "store", "disk", "clock"} <= set(
        await harness.findings()
    )


async def test_doctor_reports_the_field_of_a_spec_that_is_not_allowed_any_more(harness: DoctorHarness) -> None:
    harness.refused = {"web": 'logging.driver: "syslog" is not allowed'}
    (found,) = (await harness.unwell()).values()
    assert (found.part, found.status) == ("specs", "warning")
    assert 'web: logging.driver: "syslog"' in found.detail and "docs/upgrades.md" in found.advice


async def test_doctor_reports_a_blocking_firewall_with_the_commands_that_open_it(harness: DoctorHarness) -> None:
    harness.engine.unreachable = "no answer within 3 s"
    (found,) = (await harness.unwell()).values()
    assert (found.part, found.status) == ("firewall", "wrong")
    assert "ufw allow from 127.0.0.0/8 to 127.0.0.1" in found.advice
    assert "iptables -I INPUT -s 127.0.0.0/8 -d 127.0.0.1 -j ACCEPT" in found.advice


async def test_doctor_reports_an_internal_port_that_answers_another_network(harness: DoctorHarness) -> None:
    harness.engine.open_outside = True
    (found,) = (await harness.unwell()).values()
    assert (found.part, found.status) == ("bridge's ports", "wrong")
    assert "127.0.0.1:20001 answers" in found.detail and "iptables -t nat -S" in found.advice
    harness.engine.unreachable = "no answer within 3 s"
    assert set(await harness.unwell()) == {"firewall", "bridge's ports"}
    harness.gateway.bridge_port = None
    assert "no service has a port yet" in (await harness.findings())["bridge's ports"].detail


async def test_unreachable_engine_hides_no_other_finding(harness: DoctorHarness) -> None:
    harness.engine.fails = EngineError("The engine does not answer: no such file", transient=True)
    found = await harness.findings()
    assert found["engine"].status == found["network"].status == "wrong"
    assert found["store"].status == found["disk"].status == "ok"


async def test_doctor_reports_an_engine_that_is_too_old(harness: DoctorHarness) -> None:
    harness.version = {"version": "19.03", "api_version": "1.40"}
    assert (await harness.unwell())["engine"].status == "wrong"


async def test_doctor_reports_a_missing_network(harness: DoctorHarness) -> None:
    harness.engine.network = None
    found = await harness.unwell()
    assert (found["network"].status, found["firewall"].status) == ("wrong", "warning")


async def test_doctor_reports_a_gateway_that_is_missing_or_does_not_answer(harness: DoctorHarness) -> None:
    harness.gateway.facts = None
    assert "does not answer" in (await harness.unwell())["gateway"].detail
    harness.engine.present = None
    assert "does not exist" in (await harness.unwell())["gateway"].detail


async def test_doctor_warns_of_a_gateway_that_is_nearly_full_or_outdated(harness: DoctorHarness) -> None:
    harness.outdated = "gateway:2 is wanted"
    found = (await harness.unwell())["gateway"]
    assert found.status == "warning" and "sluice gateway upgrade" in found.advice
    harness.gateway.facts = {"version": "3.0.11", "connections": 7_000, "maxconn": 8_000}
    assert "SLUICE_MAXCONN" in (await harness.unwell())["gateway"].advice


async def test_doctor_reports_a_worker_that_differs_from_its_file(harness: DoctorHarness) -> None:
    harness.gateway.different = ["the worker does not know web-r1-1"]
    assert (await harness.unwell())["gateway's file"].status == "wrong"
    harness.gateway.fails = RoutingError("The gateway does not answer")
    assert (await harness.unwell())["gateway's file"].detail == "The gateway does not answer"


@pytest.mark.parametrize(
    ("old", "status"), [([5.0], "ok"), ([3000.0] * 11, "warning"), ([4000.0], "wrong"), ([None, 1.0], "ok")]
)
async def test_doctor_judges_old_workers_by_number_and_age(
    harness: DoctorHarness, old: list[float | None], status: str
) -> None:
    assert harness.gateway.facts is not None
    harness.gateway.facts["old_workers"] = [{"pid": 9, "replaced_for": age} for age in old]
    assert (await harness.findings())["old workers"].status == status


async def test_doctor_reports_a_damaged_database(harness: DoctorHarness) -> None:
    path = harness.store.path
    with harness.store.write_session() as session:
        for number in range(500):
            append_event(session, 1.0, "filler", f"{number} " + "x" * 500)
    harness.store.close()
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 4096 * 20] = b"\xa5" * 4096 * 20
    path.write_bytes(content)
    found = (await harness.findings())["store"]
    assert found.status == "wrong" and "corrupt" in found.detail
    assert "backup" in found.advice


async def test_doctor_reports_a_clock_that_was_set_back(harness: DoctorHarness) -> None:
    ahead = harness.clock.now() + 3600
    await harness.store.write(lambda session: append_event(session, ahead, "noted"))
    found = (await harness.findings())["clock"]
    assert found.status == "wrong" and "3600 s in the future" in found.detail


def test_disk_finding_depends_on_the_free_space() -> None:
    status = {
        free: disk_finding("/data", free).status
        for free in (0, DISK_ERROR_BYTES - 1, DISK_ERROR_BYTES, DISK_WARNING_BYTES - 1, DISK_WARNING_BYTES)
    }
    assert list(status.values()) == ["wrong", "wrong", "warning", "warning", "ok"]


async def test_doctor_reports_unknown_containers_and_a_crashed_loop(harness: DoctorHarness) -> None:
    harness.unknown_containers, harness.not_ready = ["web-r9-1"], {"loop": "crashed: KeyError", "gateway": "no answer"}
    found = await harness.unwell()
    assert "web-r9-1" in found["instances"].detail
    assert found["loop"].detail == "crashed: KeyError"
    assert set(found) == {"instances", "loop"}
