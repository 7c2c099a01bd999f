"""Outbound policy: the servers that Sluice may call at URLs from a spec instead of the operator.

The URL is checked before the call. The address that its host resolves to is checked when the connection is opened, so
the name cannot lead elsewhere in between.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import anyio
import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PORTS = {"http": 80, "https": 443}
DENIED_NETWORKS = {
    "a link-local or metadata address": ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
    "an unspecified address": ("0.0.0.0/8", "::"),
    "a multicast or reserved address": ("224.0.0.0/3", "ff00::/8"),
}
"""Addresses that may not be called, unless the operator's list has the address itself."""
_DENIED_NETWORKS = [(why, ipaddress.ip_network(text)) for why, texts in DENIED_NETWORKS.items() for text in texts]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class OutboundRefusedError(Exception):
    """Sluice may not call the URL. The message is a clause about the URL with the operator's remedy."""


@dataclass(frozen=True)
class AllowedServer:
    """A server that the operator allows. `path` is a prefix that ends with a slash.

    A `port` or `scheme` of None matches any.
    """

    host: str
    port: int | None = None
    scheme: str | None = None
    path: str = "/"

    @classmethod
    def parse(cls, text: str) -> AllowedServer:
        """Parse `host`, `host:port` (IPv6 in brackets) or the prefix of a URL. Raises ValueError."""
        is_url = "://" in text
        try:
            url = httpx.URL(text if is_url else f"any://{text}")
        except httpx.InvalidURL as error:
            raise ValueError(f"{text}: {error}") from error
        if not url.host or url.userinfo or url.query or url.fragment or (is_url and url.scheme not in PORTS):
            raise ValueError(f"{text}: must be an http or https URL without credentials or query, or host[:port]")
        if url.port is not None and not 1 <= url.port <= 65_535:
            raise ValueError(f"{text}: its port must be 1 to 65535")
        if is_url:
            return cls(_normal(url.host), _port(url), url.scheme, url.path.rstrip("/") + "/")
        if url.path not in ("", "/"):
            raise ValueError(f"{text}: must start with http:// or https:// to have a path")
        return cls(_normal(url.host), url.port)

    def matches(self, url: httpx.URL) -> bool:
        """Return True if a URL is of this server, at or below its path."""
        return (
            self.host == _normal(url.host)
            and self.port in (None, _port(url))
            and self.scheme in (None, url.scheme)
            and f"{url.path}/".startswith(self.path)
        )


@dataclass(frozen=True)
class OutboundPolicy:
    """Policy: only `servers` may be called.

    If empty, any address except those of `DENIED_NETWORKS` and this host's.

    `setting` is the name of the operator's setting for the servers.
    """

    servers: tuple[AllowedServer, ...] = ()
    setting: str = "SLUICE_EUREKA_SERVERS"

    def check(self, text: str) -> None:
        """Check a URL as far as possible without resolving a name. Raises OutboundRefusedError."""
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise OutboundRefusedError(f"is not a URL: {error}") from None
        if any(part in (".", "..") for part in unquote(text).replace("\\", "/").split("/")):
            raise OutboundRefusedError("has . or .. in its path; write the resolved path")
        if self.servers and not any(server.matches(url) for server in self.servers):
            raise OutboundRefusedError(f"is not allowed by the operator ({self.setting})")
        for address in _literal(url.host):
            self.check_address(url.host, address)

    def check_address(self, host: str, address: str) -> None:
        """Check an address that `host` resolved to. Raises OutboundRefusedError."""
        if _literal(host) and any(server.host == _normal(host) for server in self.servers):
            return
        for form in _forms(ipaddress.ip_address(address.partition("%")[0])):
            why = next((why for why, network in _DENIED_NETWORKS if form in network), None)
            if why is None and not self.servers and (form.is_loopback or is_own(form)):
                why = "an address of this host"
            if why is not None:
                raise OutboundRefusedError(
                    f"resolves to {address}, {why}; the operator can allow servers with {self.setting}"
                )

    async def addresses(self, host: str, port: int) -> list[str]:
        """Resolve `host` to the addresses that may be called, at least one.

        Raises OutboundRefusedError if none may be called, and OSError if the name cannot be resolved.
        """
        found = [str(info[4][0]) for info in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        allowed, refused = [], None
        for address in dict.fromkeys(found):
            try:
                self.check_address(host, address)
            except OutboundRefusedError as error:
                refused = refused or error
            else:
                allowed.append(address)
        if refused is not None and not allowed:
            raise refused
        return allowed


def _port(url: httpx.URL) -> int | None:
    return url.port or PORTS.get(url.scheme)


def _normal(host: str) -> str:
    """Return a host in normal form: short IPv6 without a zone, lower case, no final dot."""
    try:
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return host.lower().rstrip(".")


def _literal(host: str) -> list[str]:
    """Return the address that `host` is without resolving a name, or nothing.

    The C library also reads 127.1 and 0x7f000001 as addresses.
    """
    if _normal(host) == "localhost" or _normal(host).endswith(".localhost"):
        return ["127.0.0.1"]
    try:
        return [str(socket.getaddrinfo(_normal(host), None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4][0])]
    except (OSError, UnicodeError):
        return []


def _forms(address: Address) -> Iterator[Address]:
    """Yield the address, and the IPv4 address that it embeds, if any."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            yield embedded


def is_own(address: Address) -> bool:
    """Return True if the address is this host's: the kernel then sends from the address itself.

    No packet is sent.
    """
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return str(probe.getsockname()[0]) == str(address)
    except OSError:
        return False
