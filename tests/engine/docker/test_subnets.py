"""The choice of a subnet for Sluice's networks."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from services.engine.docker.subnets import automatic_part, free_subnets, host_routes

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def networks(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_first_free_subnet_is_chosen() -> None:
    assert list(free_subnets([], 2)) == networks("10.203.0.0/22", "10.203.4.0/22")
    assert list(free_subnets(networks("10.203.0.0/24", "10.203.6.0/23"), 1)) == networks("10.203.8.0/22")


def test_subnet_is_chosen_outside_10_if_a_vpn_uses_all_of_it() -> None:
    assert list(free_subnets(networks("10.0.0.0/8"), 1)) == networks("172.20.0.0/22")


def test_no_subnet_is_chosen_if_none_is_free() -> None:
    assert list(free_subnets(networks("0.0.0.0/0"), 1)) == []


@pytest.mark.parametrize(
    ("subnet", "part"),
    [("10.203.0.0/22", "10.203.3.192/26"), ("10.0.0.0/28", "10.0.0.12/30"), ("10.1.0.0/16", "10.1.240.0/20")],
)
def test_automatic_addresses_are_at_the_end_of_the_subnet(subnet: str, part: str) -> None:
    assert automatic_part(IPv4Network(subnet)) == IPv4Network(part)


def test_host_routes_are_read_without_the_default_route(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTES)
    assert host_routes(tmp_path / "route") == networks("172.17.0.0/16", "192.0.2.0/24")
    assert host_routes(tmp_path / "none") == []
