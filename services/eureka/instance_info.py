"""Validation of the description that an application registers.

The structure is Netflix's InstanceInfo. The error texts are the Java server's own, because people search for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_TEXT, MAX_METADATA, MAX_METADATA_CHARACTERS = 2_000, 1_000, 131_072
"""Maximum characters of a value that is no metadata, entries of the metadata, and characters of the metadata in all."""
RENEWAL, DURATION = 30, 90
"""Seconds: defaults if a client gives no valid renewal interval or lease duration."""
DEFAULT_DATA_CENTER = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"
AMAZON = "com.netflix.appinfo.AmazonInfo"
DATA_CENTER_CLASSES = frozenset({DEFAULT_DATA_CENTER, "com.netflix.appinfo.MyDataCenterInfo", AMAZON})
DATA_CENTERS = frozenset({"MyOwn", "Amazon", "Netflix"})
"""Classes and names of data centers. Consumers load the class by its name, and fail on any other class or name."""
UNREADABLE = '{"error": "cannot parse request body"}'
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class LeaseStatus(StrEnum):
    """Netflix's five statuses; any other counts as UNKNOWN."""

    UP = "UP"
    DOWN = "DOWN"
    STARTING = "STARTING"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"
    UNKNOWN = "UNKNOWN"


class InvalidRegistration(Exception):
    """A registration that cannot be accepted; the client gets the message with a 400."""


@dataclass(frozen=True)
class Port:
    number: int
    enabled: bool


@dataclass(frozen=True)
class Registration:
    """The description of one instance by itself. Durations in seconds, timestamps in milliseconds."""

    id: str
    app: str
    host: str
    ip: str
    status: LeaseStatus = LeaseStatus.UP
    vip: str | None = None
    secure_vip: str | None = None
    port: Port = Port(7001, True)
    secure_port: Port = Port(7002, False)
    country: int = 1
    data_center_class: str = DEFAULT_DATA_CENTER
    data_center: str = "MyOwn"
    metadata: Mapping[str, str] = field(default_factory=dict)
    home_page: str | None = None
    status_page: str | None = None
    health_check: str | None = None
    secure_health_check: str | None = None
    group: str | None = None
    asg: str | None = None
    renewal: int = RENEWAL
    duration: int = DURATION
    dirty: int | None = None
    """`lastDirtyTimestamp`: when the client itself last changed."""


def read(app: str, document: Any) -> Registration:
    """Return a registration for `app` from the decoded body `{"instance": {…}}`.

    Raises InvalidRegistration.
    """
    fields = document.get("instance") if isinstance(document, dict) else None
    if not isinstance(fields, dict) or not isinstance(fields.get("app"), str):
        raise InvalidRegistration(UNREADABLE)
    if any(isinstance(value, dict | list) for key, value in fields.items() if key not in _STRUCTURED):
        raise InvalidRegistration(UNREADABLE)
    host, ip = _text(fields, "hostName"), _text(fields, "ipAddr")
    identity = _text(fields, "instanceId") or host
    if not identity:
        raise InvalidRegistration("Missing instanceId")
    if not host:
        raise InvalidRegistration("Missing hostname")
    if not ip:
        raise InvalidRegistration("Missing ip address")
    name = (_text(fields, "app") or "").upper()
    if not name:
        raise InvalidRegistration("Missing appName")
    if name != app.upper():
        raise InvalidRegistration(f"Mismatched appName, expecting {app.upper()} but was {name}")
    data_center_class, data_center = _data_center(fields.get("dataCenterInfo"))
    lease = _object(fields.get("leaseInfo"))
    return Registration(
        id=identity,
        app=name,
        host=host,
        ip=ip,
        status=status_of(fields["status"]) if fields.get("status") is not None else LeaseStatus.UP,
        vip=_text(fields, "vipAddress"),
        secure_vip=_text(fields, "secureVipAddress"),
        port=_port(fields.get("port"), Port(7001, True)),
        secure_port=_port(fields.get("securePort"), Port(7002, False)),
        country=_integer(fields.get("countryId")) or 1,
        data_center_class=data_center_class,
        data_center=data_center,
        metadata=_metadata(fields.get("metadata")),
        home_page=_text(fields, "homePageUrl"),
        status_page=_text(fields, "statusPageUrl"),
        health_check=_text(fields, "healthCheckUrl"),
        secure_health_check=_text(fields, "secureHealthCheckUrl"),
        group=_text(fields, "appGroupName"),
        asg=_text(fields, "asgName"),
        renewal=_seconds(lease.get("renewalIntervalInSecs"), RENEWAL),
        duration=_seconds(lease.get("durationInSecs"), DURATION),
        dirty=_integer(fields.get("lastDirtyTimestamp")),
    )


def status_of(word: Any) -> LeaseStatus:
    """Return the status that a word names; UNKNOWN for any other, as the Java server does."""
    return LeaseStatus(word) if isinstance(word, str) and word in LeaseStatus.__members__ else LeaseStatus.UNKNOWN


def checked(text: str, longest: int = MAX_TEXT) -> str:
    """Return `text` if it is short enough and valid in XML. Raises InvalidRegistration.

    An invalid character would break the XML list for all consumers.
    """
    if len(text) > longest:
        raise InvalidRegistration(f"A value is longer than {longest} characters")
    if _CONTROL.search(text):
        raise InvalidRegistration("A value holds a control character")
    return text


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata if within its limits. Raises InvalidRegistration."""
    if len(metadata) > MAX_METADATA or metadata_size(metadata) > MAX_METADATA_CHARACTERS:
        raise InvalidRegistration(f"Metadata is more than {MAX_METADATA} entries or {MAX_METADATA_CHARACTERS} characters")
    if "" in metadata:
        raise InvalidRegistration("A key of the metadata is empty")
    return {checked(key): checked(value, MAX_METADATA_CHARACTERS) for key, value in metadata.items()}


def metadata_size(metadata: Mapping[str, str]) -> int:
    """Return the characters of all keys and values."""
    return sum(len(key) + len(value) for key, value in metadata.items())


_STRUCTURED = ("port", "securePort", "dataCenterInfo", "leaseInfo", "metadata")


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is None or value == "":
        return None
    return checked(value if isinstance(value, str) else str(value))


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRegistration(UNREADABLE)
    return value


def _data_center(value: Any) -> tuple[str, str]:
    if value is None:
        raise InvalidRegistration("Missing dataCenterInfo")
    kind = _text(_object(value), "@class")
    if kind is None:
        raise InvalidRegistration(UNREADABLE)
    name = _text(value, "name")
    if name is None:
        raise InvalidRegistration("Missing dataCenterInfo Name")
    if kind not in DATA_CENTER_CLASSES or name not in DATA_CENTERS:
        raise InvalidRegistration(UNREADABLE)
    return kind, name


def _port(value: Any, default: Port) -> Port:
    if value is None:
        return default
    if not isinstance(value, dict):
        value = {"$": value}
    number = _integer(value.get("$"))
    if number is None or not 0 <= number <= 65_535:
        raise InvalidRegistration(UNREADABLE)
    return Port(number, str(value.get("@enabled", "true")).lower() == "true")


def _metadata(value: Any) -> dict[str, str]:
    entries = {key: item for key, item in _object(value).items() if not key.startswith("@")}
    if any(isinstance(item, dict | list) for item in entries.values()):
        raise InvalidRegistration(UNREADABLE)
    return checked_metadata({key: "" if item is None else _written(item) for key, item in entries.items()})


def _written(item: Any) -> str:
    return str(item).lower() if isinstance(item, bool) else str(item)


def _integer(value: Any) -> int | None:
    if value is None or isinstance(value, bool):
        return None
    text = str(value)
    if len(text) > 20 or not re.fullmatch(r"-?[0-9]+", text):
        raise InvalidRegistration(UNREADABLE)
    return int(text)


def _seconds(value: Any, default: int) -> int:
    seconds = _integer(value) or 0
    return min(seconds, 86_400) if seconds > 0 else default
