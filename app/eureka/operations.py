"""Eureka's operations, one function each (../shared/facts/eureka.md §2.2)."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from app.eureka import responses
from app.eureka.responses import Answer
from services.eureka.applications import Entry, Key, Listing
from services.eureka.codec import json_of, parse, xml_of
from services.eureka.instance_info import Refused, Status, read
from services.eureka.leases import Unknown
from services.eureka.ownership import Forbidden
from services.eureka.registry import Registry

if TYPE_CHECKING:
    from app.eureka.request import Call

GZIP_LEVEL = 1
"""Of the list, once per change: small enough, and quick."""


async def perform(registry: Registry, call: Call) -> Answer:
    """The answer to any request. Raises Forbidden."""
    found = _operation(call)
    if found is None:
        return responses.NOT_FOUND
    try:
        if call.method not in ("GET", "HEAD"):
            if call.covers is not None and not call.covers(call.path[1]):
                raise Forbidden(f"the token may not change {call.path[1]}")
            if found is not _register:
                registry.ownership.check_change(_key(call), call.remote, by_token=call.covers is not None)
        return await found(registry, call)
    except Unknown:
        return responses.NOT_FOUND
    except Refused as refused:
        return responses.plain(400, str(refused))


Operation = Callable[[Registry, "Call"], Awaitable[Answer]]


def _operation(call: Call) -> Operation | None:
    method = "GET" if call.method == "HEAD" else call.method
    match (method, *call.path):
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


async def _register(registry: Registry, call: Call) -> Answer:
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/xml", "text/xml"):
        return responses.UNSUPPORTED
    document = parse(await call.body(), xml=kind.endswith("xml"))
    await registry.register(read(call.path[1], document), call.remote, call.covers)
    return responses.REGISTERED


async def _renew(registry: Registry, call: Call) -> Answer:
    dirty = call.query.get("lastDirtyTimestamp", "")
    registry.leases.renew(_key(call), int(dirty) if dirty.isdecimal() and len(dirty) < 20 else None)
    return responses.OK


async def _cancel(registry: Registry, call: Call) -> Answer:
    await registry.cancel(_key(call))
    return responses.OK


async def _override(registry: Registry, call: Call) -> Answer:
    status = _named_status(call)
    if status is None:
        return responses.BAD_VALUE
    await registry.override(_key(call), status)
    return responses.OK


async def _remove_override(registry: Registry, call: Call) -> Answer:
    await registry.remove_override(_key(call), _named_status(call) or Status.UNKNOWN)
    return responses.OK


async def _metadata(registry: Registry, call: Call) -> Answer:
    await registry.add_metadata(_key(call), dict(call.query))
    return responses.OK


async def _all(registry: Registry, call: Call) -> Answer:
    registry.noticed(call.remote, call.identity, direct=call.direct)
    book = registry.book(direct=call.direct)
    return _listing(registry, call, "full", book.full)


async def _delta(registry: Registry, call: Call) -> Answer:
    complete = registry.noticed(call.remote, call.identity, direct=call.direct)
    book = registry.book(direct=call.direct)
    now = registry.clock.now()
    return _listing(registry, call, f"delta-{complete}", lambda: book.delta(now, complete=complete))


async def _application(registry: Registry, call: Call) -> Answer:
    name = call.path[1].upper()
    entries = tuple(entry for entry in registry.book(direct=call.direct).entries() if entry.registration.app == name)
    return _written(call, (name, entries)) if entries else responses.NOT_FOUND


async def _instance(registry: Registry, call: Call) -> Answer:
    book = registry.book(direct=call.direct)
    if call.path[0] == "apps":
        entry = book.get(_key(call))
    else:
        entry = next((entry for entry in book.entries() if entry.registration.id == call.path[1]), None)
    return _written(call, entry) if entry is not None else responses.NOT_FOUND


async def _vip(registry: Registry, call: Call) -> Answer:
    """By VIP, exactly as written. Nobody known by it: an empty list of version -1, as the Java server says."""
    secure, vip = call.path[0] == "svips", call.path[1]

    def named(entry: Entry) -> bool:
        said = entry.registration.secure_vip if secure else entry.registration.vip
        return vip in (said or "").split(",")

    found = registry.book(direct=call.direct).full(named)
    return _written(call, found if found.apps else Listing(-1, found.hashcode, {}))


async def _status(registry: Registry, call: Call) -> Answer:
    count = len(registry.leases.book)
    body = f"<com.netflix.eureka.util.StatusInfo><generalStats><registered-instances>{count}</registered-instances>"
    return responses.document(f"{body}</generalStats></com.netflix.eureka.util.StatusInfo>".encode(), responses.XML)


def _key(call: Call) -> Key:
    return call.path[1].upper(), call.path[2]


def _named_status(call: Call) -> Status | None:
    value = call.query.get("value", "")
    return Status(value) if value in Status.__members__ else None


def _wants_json(call: Call) -> bool:
    """JSON when `Accept` names it, else XML, so that `curl` and py-eureka-client get XML."""
    return "json" in call.headers.get("accept", "")


def _written(call: Call, what: Listing | Entry | tuple[str, tuple[Entry, ...]]) -> Answer:
    if _wants_json(call):
        return responses.document(json_of(what), responses.JSON)
    return responses.document(xml_of(what), responses.XML)


def _listing(registry: Registry, call: Call, name: str, listing: Callable[[], Listing]) -> Answer:
    book = registry.book(direct=call.direct)
    as_json, gzipped = _wants_json(call), "gzip" in call.headers.get("accept-encoding", "")
    write = json_of if as_json else xml_of
    plain = book.built(f"{name}-{as_json}", lambda: write(listing()))
    if gzipped:
        plain = book.built(f"{name}-{as_json}-gzip", lambda: gzip.compress(plain, GZIP_LEVEL))
    return responses.document(plain, responses.JSON if as_json else responses.XML, gzipped=gzipped)
