"""Pure but for one file: which subnet a network of ours may have."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

_ROUTES = Path("/proc/net/route")


def free_subnets(taken: Collection[IPv4Network], most: int) -> Iterator[IPv4Network]:
    """The first `most` subnets that overlap nothing that is taken: 10.203.0.0/22, 10.203.4.0/22 and so on; elsewhere when
    somebody, such as a VPN, has the whole of 10.0.0.0/8."""
    prefixes = [f"10.{second}" for second in range(203, 251)] + [f"172.{second}" for second in range(20, 32)] + ["192.168"]
    candidates = (IPv4Network(f"{prefix}.{third}.0/22") for prefix in prefixes for third in range(0, 256, 4))
    return islice((one for one in candidates if not any(one.overlaps(other) for other in taken)), most)


def automatic_part(subnet: IPv4Network) -> IPv4Network:
    """The last sixteenth: where the engine may take addresses for guests that name none, far from those that Sluice
    gives out first."""
    return list(subnet.subnets(new_prefix=min(subnet.prefixlen + 4, 30)))[-1]


def host_routes(routes: Path = _ROUTES) -> list[IPv4Network]:
    """The networks that this host has routes to, but the default route. None where the kernel does not tell."""
    networks = []
    with suppress(OSError):
        for line in routes.read_text().splitlines()[1:]:
            _, destination, _, _, _, _, _, mask, *_ = line.split()
            network = IPv4Network((_address(destination), str(_address(mask))), strict=False)
            if network.prefixlen > 0:
                networks.append(network)
    return networks


def _address(text: str) -> IPv4Address:
    """The kernel writes addresses as hexadecimal numbers in the machine's own byte order."""
    return IPv4Address(struct.pack("=I", int(text, 16)))
