"""The global, defaults, frontend and fallback sections of haproxy.cfg."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from services.gateway.config.headers import header_rules, script_lines
from services.gateway.config.latency_buckets import refusal_rules, stick_table, stick_table_rules
from services.gateway.config.model import KEEP_ALIVE_TIMEOUT, MAX_QUEUED_PER_SERVICE, RUN_DIRECTORY, GatewaySettings
from services.gateway.config.names import QUEUE_SERVER

_TEXT = "content-type text/plain"
_QUEUE_SOCKET = f"unix@{RUN_DIRECTORY}/hold.sock"
_NO_SERVICE = "    default_backend nowhere"
_BY_SERVICE = f"    use_backend %[var(txn.service),map({RUN_DIRECTORY}/live.map)]"


def global_section(settings: GatewaySettings, static_digest: str) -> list[str]:
    """Return the global section, which makes `static_digest` readable from a running worker.

    `static_digest` is the digest of the configuration: it shows which file a worker has read.
    """
    maxconn = int(settings.maxconn)
    return [
        "global",
        "    log stdout format raw local0 info",
        f"    maxconn {maxconn}",
        "    user haproxy",
        "    group haproxy",
        "    hard-stop-after 1h",
        # Without `noreuseport`, another process could bind the same port and take half of the connections; that must be an
        # error.
        "    noreuseport",
        f"    stats socket {RUN_DIRECTORY}/admin.sock mode 600 level admin expose-fd listeners",
        f"    lua-load /usr/local/lib/sluice/hold.lua {MAX_QUEUED_PER_SERVICE} {maxconn // 4}",
        *script_lines(),
        f"    set-var proc.shape str({static_digest})",
        "",
    ]


def defaults_sections(settings: GatewaySettings) -> list[str]:
    """Return the defaults sections: for all proxies, for all frontends and for all services."""
    trusted = [str(ip_network(network, strict=False)) for network in settings.trusted_proxies]
    untrusted = f" unless {{ src {' '.join(trusted)} }}" if trusted else ""
    too_large = f"if {{ req.body_size gt {int(settings.max_body)} }}"
    return [
        "defaults base",
        "    mode http",
        "    log global",
        "    option dontlognull",
        *([] if settings.log_all else ["    option dontlog-normal"]),
        "    timeout connect 250ms",
        "    timeout client 60s",
        "    timeout server 60s",
        "    timeout queue 10s",
        "    timeout http-request 10s",
        f"    timeout http-keep-alive {KEEP_ALIVE_TIMEOUT}s",
        "    option idle-close-on-response",
        f'    http-error status 503 {_TEXT} string "Service unavailable: no healthy instance.\\n" hdr Retry-After 1',
        "",
        "defaults doors from base",
        "    option httplog",
        f'    http-request return status 413 {_TEXT} string "Request body too large.\\n" {too_large}',
        *header_rules(),
        # `-m sub` deletes X-Forwarded-* and Forwarded with one search.
        f"    http-request del-header forwarded -m sub{untrusted}",
        "    option forwardfor",
        f"    http-request add-header X-Forwarded-Proto http{untrusted}",
        f"    http-request add-header X-Forwarded-Host %[req.hdr(host)]{untrusted}",
        "",
        "defaults serving from base",
        "    balance leastconn",
        "    retries 3",
        "    option redispatch 1",
        "    retry-on conn-failure empty-response",
        # An instance whose network is gone closes no connection. Without these, its requests would wait for request_timeout.
        "    option srvtcpka",
        "    srvtcpka-idle 2s",
        "    srvtcpka-intvl 1s",
        "    srvtcpka-cnt 2",
        *stick_table_rules(),
        "",
    ]


@dataclass(frozen=True)
class Features:
    """Capabilities of the public frontend.

    Each one costs time on every request, so it is rendered only if a route needs it. `hosts`: a route names a host.
    `strips`: a route strips its prefix.
    """

    hosts: bool = False
    strips: bool = False

    def covers(self, other: Features) -> bool:
        """Return whether these features include all of `other`."""
        return (self.hosts or not other.hosts) and (self.strips or not other.strips)


def frontends(
    settings: GatewaySettings, features: Features, internal_ports: Iterable[int], linked_ports: Iterable[int]
) -> list[str]:
    """Return the public frontend, each service's internal port, and the ports of linked services.

    The internal and linked ports are bound on the bridge's address. The Host header tells which linked service a request is
    for. If the public port is also a linked service's port, the public frontend serves it on the bridge's address as well.
    """
    bridge, subnet = ip_address(settings.bridge_address), ip_network(settings.subnet, strict=False)
    # Other networks of the host, and packets that the LAN routes here, can reach the bridge's address too. The host's own
    # calls come from any of its addresses: Docker masquerades packets from the bridge's address to itself over lo.
    instances_only = f"    tcp-request connection reject unless {{ src {subnet} }} || {{ src_is_local }}"
    public = int(settings.public_port)
    internal = [f"    bind {bridge}:{int(port)}" for port in internal_ports]
    ports = set(linked_ports)
    linked = [f"    bind {bridge}:{int(port)}" for port in sorted(ports - {public})]
    by_host = f"req.hdr(host),host_only,rtrim(.),lower,concat(:,txn.port),map({RUN_DIRECTORY}/links.map)"
    set_port = ["    http-request set-var(txn.port) dst_port"]
    from_instances = f"if {{ dst {bridge} }} {{ src {subnet} }} || {{ dst {bridge} }} {{ src_is_local }}"
    link_rules = [*set_port, f"    http-request set-var(txn.route) {by_host} {from_instances}"] if public in ports else []
    lines = ["frontend public from doors", f"    bind *:{public}", *_routes(features, link_rules), _NO_SERVICE, ""]
    if internal:
        by_port = f"dst_port,map({RUN_DIRECTORY}/ports.map),map({RUN_DIRECTORY}/live.map)"
        lines += [
            "frontend internal from doors",
            *internal,
            instances_only,
            f"    use_backend %[{by_port}]",
            _NO_SERVICE,
            "",
        ]
    if linked:
        lines += ["frontend links from doors", *linked, instances_only, *set_port]
        lines += [f"    http-request set-var(txn.service) {by_host}", _BY_SERVICE, _NO_SERVICE, ""]
    return lines


def _routes(features: Features, link_rules: list[str]) -> list[str]:
    """Return the rules that map host and path to a service.

    The longest prefix of whole path segments wins. Routes of the request's host precede routes without a host.
    """
    any_host = f"path,concat(/),map_beg({RUN_DIRECTORY}/routes.map)"
    if not (features.hosts or features.strips or link_rules):
        return [f"    use_backend %[{any_host},map({RUN_DIRECTORY}/live.map)]"]
    lines = [f"    http-request set-var(txn.route) {any_host}"]
    if features.hosts:
        of_host = f"req.hdr(host),host_only,rtrim(.),lower,concat(,txn.path,/),map_beg({RUN_DIRECTORY}/hosts.map)"
        lines += ["    http-request set-var(txn.path) path", f"    http-request set-var(txn.route) {of_host}"]
    lines += link_rules
    if not features.strips:
        return [*lines, f"    use_backend %[var(txn.route),map({RUN_DIRECTORY}/live.map)]"]
    stripped = "if { var(txn.strip) -m found }"
    return [
        *lines,
        "    http-request set-var(txn.strip) var(txn.route),field(2,:),add(0) if { var(txn.route) -m sub : }",
        f"    http-request add-header X-Forwarded-Prefix %[path,bytes(0,txn.strip)] {stripped}",
        f'    http-request set-path "/%[path,bytes(txn.strip),ltrim(/)]" {stripped}',
        f"    use_backend %[var(txn.route),field(1,:),map({RUN_DIRECTORY}/live.map)]",
    ]


def fallback_sections() -> list[str]:
    """Return the 404 backend, the frontend that queues requests, and the table that counts answers.

    The backup server of every backend leads to the frontend `held`. There hold.lua queues requests until an instance serves.
    """
    retry_later = f"http-request return status 503 {_TEXT} hdr Retry-After 1 string"
    return [
        "backend nowhere from base",
        f'    http-request return status 404 {_TEXT} string "No service at this address.\\n"',
        "",
        "frontend held from base",
        f"    bind {_QUEUE_SOCKET} accept-proxy user haproxy mode 600",
        "    no log",
        "    option httpclose",
        "    http-request set-var(txn.service) fc_pp_tlv(0xE1)",
        "    http-request lua.hold",
        *refusal_rules("if { var(txn.held) -m str full late }"),
        f'    {retry_later} "Service unavailable: too many queued requests.\\n" if {{ var(txn.held) -m str full }}',
        f'    {retry_later} "Service unavailable: no healthy instance.\\n" if {{ var(txn.held) -m str late }}',
        "    use_backend moved if { var(txn.held) -m str moved }",
        _BY_SERVICE,
        _NO_SERVICE,
        "",
        "backend moved from base",
        "    timeout server 7d",
        f"    server {queue_server('%[var(txn.service)]')}",
        "",
        *stick_table(),
    ]


def queue_server(service: str) -> str:
    """Return the server that leads to the `held` frontend and passes it the service's name."""
    return f"{QUEUE_SERVER} {_QUEUE_SOCKET} send-proxy-v2 set-proxy-v2-tlv-fmt(0xE1) {service} pool-max-conn 0"
