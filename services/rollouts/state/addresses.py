"""Instance addresses, assigned in turn by the store (docs/why-fixed-addresses.md).

A freed address is used last, so that a late request does not reach another service's instance.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address, ip_network

from sqlmodel import Session, col, select

from services.store.tables import Instance, Meta

LAST = "address_last"


class SubnetExhausted(Exception):
    """The error for a subnet of which every address is in use."""


def next_address(subnet: str, last: str | None, taken: Collection[str]) -> str:
    """Return the first free address after `last`, wrapping around at the end of the subnet.

    The subnet's first host address is the bridge's own. Raises SubnetExhausted if no address is free.
    """
    network = ip_network(subnet)
    usable = network.num_addresses - 3  # without the network, bridge and broadcast addresses
    first = int(network.network_address) + 2
    here = int(ip_address(last)) - first if last is not None and ip_address(last) in network else -1
    for step in range(1, usable + 1):
        address = str(ip_address(first + (here + step) % usable))
        if address not in taken:
            return address
    raise SubnetExhausted(f"all {usable} addresses of {subnet} are in use")


def allocate_address(session: Session, subnet: str) -> str:
    """Allocate the next free address in the caller's transaction.

    The same transaction must also write the instance's row. Raises SubnetExhausted if no address is free.
    """
    taken = set(session.exec(select(Instance.address).where(col(Instance.stopped_at).is_(None))))
    last = session.get(Meta, LAST)
    address = next_address(subnet, last.value if last else None, taken)
    session.merge(Meta(key=LAST, value=address))
    return address
