"""Choice of a free subnet for the instances' network. Pure, but for reading one file."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

_ROUTES = Path("/proc/net/route")


def free_subnets(taken: Collection[IPv4Network], count: int) -> Iterator[IPv4Network]:
    """Return the first `most` candidate subnets that overlap none of `taken`.

    Candidates are 10.203.0.0/22, 10.203.4.0/22 and so on. If 10.0.0.0/8 is taken entirely, for example by a VPN, they
    come from 172.20.0.0 to 172.31.255.255, then from 192.168.0.0/16.
    """
    prefixes = [f"10.{second}" for second in range(203, 251)] + [f"172.{second}" for second in range(20, 32)] + ["192.168"]
    candidates = (IPv4Network(f"{prefix}.{third}.0/22") for prefix in prefixes for third in range(0, 256, 4))
    return islice((candidate for candidate in candidates if not any(candidate.overlaps(other) for other in taken)), count)


def automatic_part(subnet: IPv4Network) -> IPv4Network:
    """Return the last sixteenth of the subnet, the range for containers that request no address.

    Sluice allocates its addresses from the other end.
    """
    return list(subnet.subnets(new_prefix=min(subnet.prefixlen + 4, 30)))[-1]


def host_routes(routes: Path = _ROUTES) -> list[IPv4Network]:
    """Return the networks in the host's routing table, without the default route.

    The list is empty if the kernel has no such table.
    """
    networks = []
    with suppress(OSError):
        for line in routes.read_text().splitlines()[1:]:
            _, destination, _, _, _, _, _, mask, *_ = line.split()
            network = IPv4Network((_address(destination), str(_address(mask))), strict=False)
            if network.prefixlen > 0:
                networks.append(network)
    return networks


def _address(text: str) -> IPv4Address:
    """Parse an address of /proc/net/route: a hexadecimal number in the machine's byte order."""
    return IPv4Address(struct.pack("=I", int(text, 16)))
