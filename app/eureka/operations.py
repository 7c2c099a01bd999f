"""The operations of the Eureka REST API, one function each."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from app.eureka import responses
from app.eureka.responses import EurekaResponse
from services.eureka.applications import Entry, Key, Snapshot
from services.eureka.codec import json_of, parse, xml_of
from services.eureka.instance_info import InvalidRegistration, LeaseStatus, read
from services.eureka.leases import LeaseNotFound
from services.eureka.ownership import Forbidden
from services.eureka.registry import Registry

if TYPE_CHECKING:
    from app.eureka.request import EurekaRequest

GZIP_LEVEL = 1
"""Level for the list, compressed once per change: small enough, and fast."""


async def perform(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    """Return the response to a request. Raises Forbidden if the client may not change the lease."""
    operation = _operation(request)
    if operation is None:
        return responses.NOT_FOUND
    try:
        if request.method not in ("GET", "HEAD"):
            if request.covers is not None and not request.covers(request.path[1]):
                raise Forbidden(f"the token may not change {request.path[1]}")
            if operation is not _register:
                registry.ownership.check_change(_key(request), request.remote, by_token=request.covers is not None)
        return await operation(registry, request)
    except LeaseNotFound:
        return responses.NOT_FOUND
    except InvalidRegistration as error:
        return responses.plain(400, str(error))


Operation = Callable[[Registry, "EurekaRequest"], Awaitable[EurekaResponse]]


def _operation(request: EurekaRequest) -> Operation | None:
    method = "GET" if request.method == "HEAD" else request.method
    match (method, *request.path):
        case ("GET", "apps"):
            return _all
        case ("GET", "apps", "delta"):
            return _delta
        case ("GET", "apps", _):
            return _application
        case ("POST", "apps", _):
            return _register
        case ("GET", "apps", _, _) | ("GET", "instances", _):
            return _instance
        case ("PUT", "apps", _, _):
            return _renew
        case ("DELETE", "apps", _, _):
            return _cancel
        case ("PUT", "apps", _, _, "status"):
            return _override
        case ("DELETE", "apps", _, _, "status"):
            return _remove_override
        case ("PUT", "apps", _, _, "metadata"):
            return _metadata
        case ("GET", "vips" | "svips", _):
            return _vip
        case ("GET", "status"):
            return _status
    return None


async def _register(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/xml", "text/xml"):
        return responses.UNSUPPORTED
    document = parse(await request.body(), xml=kind.endswith("xml"))
    await registry.register(read(request.path[1], document), request.remote, request.covers)
    return responses.REGISTERED


async def _renew(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    dirty = request.query.get("lastDirtyTimestamp", "")
    registry.leases.renew(_key(request), int(dirty) if dirty.isdecimal() and len(dirty) < 20 else None)
    return responses.OK


async def _cancel(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    await registry.cancel(_key(request))
    return responses.OK


async def _override(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    status = _named_status(request)
    if status is None:
        return responses.BAD_VALUE
    await registry.override(_key(request), status)
    return responses.OK


async def _remove_override(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    await registry.remove_override(_key(request), _named_status(request) or LeaseStatus.UNKNOWN)
    return responses.OK


async def _metadata(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    await registry.add_metadata(_key(request), dict(request.query))
    return responses.OK


async def _all(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    registry.record_fetch(request.remote, request.identity, direct=request.direct)
    applications = registry.applications(direct=request.direct)
    return _listing(registry, request, "full", applications.full)


async def _delta(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    complete = registry.record_fetch(request.remote, request.identity, direct=request.direct)
    applications = registry.applications(direct=request.direct)
    now = registry.clock.now()
    return _listing(registry, request, f"delta-{complete}", lambda: applications.delta(now, complete=complete))


async def _application(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    name = request.path[1].upper()
    entries = tuple(
        entry for entry in registry.applications(direct=request.direct).entries() if entry.registration.app == name
    )
    return _encoded(request, (name, entries)) if entries else responses.NOT_FOUND


async def _instance(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    applications = registry.applications(direct=request.direct)
    if request.path[0] == "apps":
        entry = applications.get(_key(request))
    else:
        entry = next((entry for entry in applications.entries() if entry.registration.id == request.path[1]), None)
    return _encoded(request, entry) if entry is not None else responses.NOT_FOUND


async def _vip(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    """Look up a VIP, exactly as written.

    An unknown VIP gets an empty list of version -1, as from the Java server.
    """
    secure, vip = request.path[0] == "svips", request.path[1]

    def named(entry: Entry) -> bool:
        names = entry.registration.secure_vip if secure else entry.registration.vip
        return vip in (names or "").split(",")

    matching = registry.applications(direct=request.direct).full(named)
    return _encoded(request, matching if matching.apps else Snapshot(-1, matching.hashcode, {}))


async def _status(registry: Registry, request: EurekaRequest) -> EurekaResponse:
    count = len(registry.leases.applications)
    body = f"<com.netflix.eureka.util.StatusInfo><generalStats><registered-instances>{count}</registered-instances>"
    return responses.document(f"{body}</generalStats></com.netflix.eureka.util.StatusInfo>".encode(), responses.XML)


def _key(request: EurekaRequest) -> Key:
    return request.path[1].upper(), request.path[2]


def _named_status(request: EurekaRequest) -> LeaseStatus | None:
    value = request.query.get("value", "")
    return LeaseStatus(value) if value in LeaseStatus.__members__ else None


def _wants_json(request: EurekaRequest) -> bool:
    """Tell whether `Accept` contains "json".

    Otherwise the response is XML, as for `curl` and py-eureka-client.
    """
    return "json" in request.headers.get("accept", "")


def _encoded(request: EurekaRequest, content: Snapshot | Entry | tuple[str, tuple[Entry, ...]]) -> EurekaResponse:
    if _wants_json(request):
        return responses.document(json_of(content), responses.JSON)
    return responses.document(xml_of(content), responses.XML)


def _listing(registry: Registry, request: EurekaRequest, name: str, snapshot: Callable[[], Snapshot]) -> EurekaResponse:
    applications = registry.applications(direct=request.direct)
    as_json, gzipped = _wants_json(request), "gzip" in request.headers.get("accept-encoding", "")
    write = json_of if as_json else xml_of
    plain = applications.cached_response(f"{name}-{as_json}", lambda: write(snapshot()))
    if gzipped:
        plain = applications.cached_response(f"{name}-{as_json}-gzip", lambda: gzip.compress(plain, GZIP_LEVEL))
    return responses.document(plain, responses.JSON if as_json else responses.XML, gzipped=gzipped)
