"""Renders services and admitted endpoints as haproxy.cfg and its maps.

The functions are pure and take typed values only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from services.gateway.config.frontends import (
    Features,
    defaults_sections,
    fallback_sections,
    frontends,
    global_section,
    queue_server,
)
from services.gateway.config.headers import STRIP_COOKIES
from services.gateway.config.health_checks import (
    CheckPolicy,
    check_lines,
    check_map,
    header_map,
    is_stricter,
    least_strict_policy,
)
from services.gateway.config.latency_buckets import BUCKETS
from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.names import empty_backend, live_backend
from services.routing.port import Endpoint, RoutedService
from services.text_forms import SERVICE_NAME

MAPS = ("routes", "hosts", "live", "ports", "links", "patience", "checks", "headers", "buckets")
MAX_DOWN_CHECK_INTERVAL = 250
"""Milliseconds, at most, between two checks of a server that is down."""
_SERVICE = re.compile(SERVICE_NAME)
_INSTANCE = re.compile(r"[a-z][a-z0-9-]*-r[0-9]+-[0-9]+")
_ROUTE = re.compile(r"(\*|[a-z0-9.-]+)/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")


@dataclass(frozen=True)
class BackendConfig:
    """One service's part of haproxy.cfg and of the maps.

    Only a reload can change `structure` and `check_policy`.
    """

    service: RoutedService
    lines: tuple[str, ...]
    maps: Mapping[str, Mapping[str, str]]
    structure: str
    check_policy: CheckPolicy

    @property
    def features(self) -> Features:
        strips = any(":" in value for name in ("routes", "hosts") for value in self.maps[name].values())
        return Features(hosts=bool(self.maps["hosts"]), strips=strips)


@dataclass(frozen=True)
class HaproxyConfig:
    """Configuration that HAProxy reads.

    `static_digest` is the digest of everything that only a reload can change.
    """

    config: str
    maps: Mapping[str, Mapping[str, str]]
    static_digest: str
    backends: Mapping[str, BackendConfig]
    """Service → its part of the configuration."""
    features: Features
    binds: frozenset[tuple[str, int]]

    @property
    def frontends(self) -> set[int]:
        """Ports of this configuration on the bridge's address."""
        services = [backend.service for backend in self.backends.values()]
        return {service.internal_port for service in services} | {service.port for service in services if service.linked}

    def can_apply_live(self, backend: BackendConfig) -> bool:
        """Return whether a worker that has read this configuration can serve `backend` without a reload.

        The worker must not judge the backend's instances by a stricter rule than their own.
        """
        present = self.backends.get(backend.service.name)
        return (
            present is not None
            and present.structure == backend.structure
            and not is_stricter(present.check_policy, backend.check_policy)
            and self.features.covers(backend.features)
            and backend.service.internal_port in self.frontends
            and (not backend.service.linked or backend.service.port in self.frontends)
        )


def render(settings: GatewaySettings, backends: Iterable[BackendConfig]) -> HaproxyConfig:
    """Render the configuration of all services.

    Raises ValueError for a value that haproxy.cfg cannot contain, and for a port or route that two services claim.
    """
    by_service = {each.service.name: each for each in sorted(backends, key=lambda each: each.service.name)}
    maps: dict[str, dict[str, str]] = {name: {} for name in MAPS} | {"buckets": dict(BUCKETS)}
    for backend in by_service.values():
        for name, entries in backend.maps.items():
            for key, value in entries.items():
                if key in maps[name]:
                    raise ValueError(
                        f"{backend.service.name} and {value_owner(maps[name][key])} both use {_kind_of_key(name)} {key}"
                    )
                maps[name][key] = value
    internal = sorted(backend.service.internal_port for backend in by_service.values())
    linked = sorted({backend.service.port for backend in by_service.values() if backend.service.linked})
    for port in set(internal) & {*linked, settings.public_port}:
        raise ValueError(f"internal port {port} is used by a linked service or is the public port")
    needed = [backend.features for backend in by_service.values()]
    features = Features(any(each.hosts for each in needed), any(each.strips for each in needed))
    fixed = [*defaults_sections(settings), *frontends(settings, features, internal, linked), *fallback_sections()]
    structures = [backend.structure + _digest(check_lines(backend.check_policy)) for backend in by_service.values()]
    static_digest = _digest([*global_section(settings, ""), *fixed, *structures, STRIP_COOKIES])
    lines = [
        *global_section(settings, static_digest),
        *fixed,
        *(line for backend in by_service.values() for line in backend.lines),
    ]
    bridge = {(settings.bridge_address, port) for port in (*internal, *linked) if port != settings.public_port}
    binds = {("0.0.0.0", settings.public_port), *bridge}  # noqa: S104 - the public port
    return HaproxyConfig("\n".join(lines), maps, static_digest, by_service, features, frozenset(binds))


def render_backend(desired: DesiredBackend) -> BackendConfig:
    """Render one service's part of the configuration. Raises ValueError as `render` does."""
    service = desired.service
    _validate(desired)
    endpoints = sorted(desired.endpoints.values(), key=lambda endpoint: endpoint.id)
    policy = least_strict_policy([service.healthcheck, *(endpoint.healthcheck for endpoint in endpoints)])
    common = _common(service)
    structure = [f"backend {live_backend(service.name)} from serving", *common]
    hold = f"    server {queue_server(service.name)} backup"
    lines = [*structure, *check_lines(policy), hold, *(f"    server {server_line(endpoint)}" for endpoint in endpoints), ""]
    lines += [f"backend {empty_backend(service.name)} from serving", *common, hold, ""]
    return BackendConfig(service, tuple(lines), _maps(service, endpoints), _digest(structure), policy)


def server_line(endpoint: Endpoint) -> str:
    """Return `name address:port settings`, for both haproxy.cfg and `add server`.

    All settings are explicit, because a dynamic server inherits none.
    """
    check = endpoint.healthcheck
    words = [f"{endpoint.id} {endpoint.address}:{endpoint.port} pool-purge-delay 1s"]
    if not check.disable:
        interval = max(int(check.interval * 1000), 100)
        words.append(
            f"check inter {interval} downinter {min(interval, MAX_DOWN_CHECK_INTERVAL)} fall {int(check.retries)} rise 1"
        )
        # A server that cannot be connected to is down immediately, until a check succeeds. A retry then goes to another
        # server, or waits, instead of using all retries on the same dead server.
        words.append("observe layer4 error-limit 1 on-error mark-down")
        words += [f"port {int(check.port)}"] if check.port else []
    return " ".join(words)


def value_owner(value: str) -> str:
    """Return the service that a map's value names."""
    return value.split(":")[0]


def _common(service: RoutedService) -> list[str]:
    """Return the settings that both backends of a service share."""
    unsafe, keyed = "!{ method GET HEAD OPTIONS }", "{ req.hdr(idempotency-key) -m found }"
    tunnel = int(service.tunnel_timeout * 1000)
    streams = "{ res.hdr(content-type) -m beg text/event-stream }"
    lines = [
        f"    timeout server {int(service.request_timeout * 1000)}ms",
        f"    timeout tunnel {tunnel}ms",
        f"    http-response set-timeout server {tunnel} if {streams}",
    ]
    if not service.upstream_keepalive:
        lines.append("    option http-server-close")
    if service.retry_with_idempotency_key:
        # HAProxy can send a request again only if it has received all of it.
        lines.append(f"    http-request wait-for-body time {int(service.request_timeout * 1000)}ms if {unsafe} {keyed}")
        return [*lines, f"    http-request disable-l7-retry if {unsafe} !{keyed}"]
    return [*lines, f"    http-request disable-l7-retry if {unsafe}"]


def _maps(service: RoutedService, endpoints: Iterable[Endpoint]) -> dict[str, dict[str, str]]:
    routes: dict[str, str] = {}
    hosts: dict[str, str] = {}
    for route in service.routes:
        host, prefix = route.key
        value = f"{service.name}:{len(prefix) - 1}" if route.strip_prefix and prefix != "/" else service.name
        if route.host is None:
            routes[prefix] = value
        else:
            hosts[host + prefix] = value
    # The answer must come within request_timeout, queueing included: a request that is queued longer would end as 504.
    max_wait = min(service.queue_timeout, service.request_timeout * 0.9)
    checks: dict[str, str] = {}
    headers: dict[str, str] = {}
    for endpoint in endpoints:
        checks |= check_map(endpoint)
        headers |= header_map(endpoint)
    return {
        "routes": routes,
        "hosts": hosts,
        "live": {service.name: live_backend(service.name)},
        "ports": {str(service.internal_port): service.name},
        "links": {f"{service.name}:{service.port}": service.name} if service.linked else {},
        "patience": {service.name: str(int(max_wait * 1000))},
        "checks": checks,
        "headers": headers,
        "buckets": {},
    }


def _validate(desired: DesiredBackend) -> None:
    service = desired.service
    if not _SERVICE.fullmatch(service.name):
        raise ValueError(f"not a service's name: {service.name!r}")
    for port in (service.port, service.internal_port, *(endpoint.port for endpoint in desired.endpoints.values())):
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"not a port: {port!r}")
    for route in service.routes:
        if not _ROUTE.fullmatch("".join(route.key)):
            raise ValueError(f"not a route: {''.join(route.key)!r}")
    for endpoint in desired.endpoints.values():
        if not _INSTANCE.fullmatch(endpoint.id):
            raise ValueError(f"not an instance's id: {endpoint.id!r}")
        ip_address(endpoint.address)


def _kind_of_key(name: str) -> str:
    return {"routes": "the route", "hosts": "the route", "ports": "the internal port"}.get(name, name)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
