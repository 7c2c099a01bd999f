"""Addresses are ours (design.md §5): taken in turn, so a freed one is used last and a late request meets no stranger."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address, ip_network

from sqlmodel import Session, col, select

from services.store.tables import Instance, Meta

LAST = "address_last"


class SubnetExhausted(Exception):
    """Every address of the subnet is in use."""


def next_address(subnet: str, last: str | None, taken: Collection[str]) -> str:
    """The free address that comes after `last`, round and round. The first one is the bridge's own. Raises
    SubnetExhausted."""
    network = ip_network(subnet)
    usable = network.num_addresses - 3  # without the network's, the bridge's and the broadcast address
    first = int(network.network_address) + 2
    here = int(ip_address(last)) - first if last is not None and ip_address(last) in network else -1
    for step in range(1, usable + 1):
        address = str(ip_address(first + (here + step) % usable))
        if address not in taken:
            return address
    raise SubnetExhausted(f"all {usable} addresses of {subnet} are in use")


def allocate_address(session: Session, subnet: str) -> str:
    """Take the next address, in the caller's transaction, which must write the instance's row as well."""
    taken = set(session.exec(select(Instance.address).where(col(Instance.stopped_at).is_(None))))
    last = session.get(Meta, LAST)
    address = next_address(subnet, last.value if last else None, taken)
    session.merge(Meta(key=LAST, value=address))
    return address
