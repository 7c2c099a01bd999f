"""Encoding of registrations and listings in JSON and XML, for Netflix's clients and all others.

Spring's reader is strict: lists even for one element, no unknown keys, `$` as a number, `@enabled` and timestamps as
strings.
"""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from services.eureka.applications import Entry, Snapshot
from services.eureka.instance_info import AMAZON, DEFAULT_DATA_CENTER, UNREADABLE, InvalidRegistration, Port

MAX_DEPTH = 8
EMPTY_MAP = "java.util.Collections$EmptyMap"


def parse(body: bytes, *, xml: bool) -> dict[str, Any]:
    """Parse the body of a registration into the structure of the JSON form. Raises InvalidRegistration."""
    try:
        if xml:
            root = fromstring(body, forbid_dtd=True)
            return {"instance": _instance_of(root)} if root.tag == "instance" else {}
        document = json.loads(body)
    except (ValueError, LookupError, RecursionError, ParseError, DefusedXmlException) as error:
        raise InvalidRegistration(UNREADABLE) from error
    if not isinstance(document, dict) or _depth(document) > MAX_DEPTH:
        raise InvalidRegistration(UNREADABLE)
    return document


def json_of(content: Snapshot | Entry | tuple[str, tuple[Entry, ...]]) -> bytes:
    """Encode a listing, an instance, or an application with its name as JSON."""
    if isinstance(content, Entry):
        document: dict[str, Any] = {"instance": _fields(content)}
    elif isinstance(content, Snapshot):
        apps = [{"name": name, "instance": [_fields(entry) for entry in entries]} for name, entries in content.apps.items()]
        document = {
            "applications": {
                "versions__delta": str(content.version),
                "apps__hashcode": content.hashcode,
                "application": apps,
            }
        }
    else:
        document = {"application": {"name": content[0], "instance": [_fields(entry) for entry in content[1]]}}
    return json.dumps(document, separators=(",", ":")).encode()


def xml_of(content: Snapshot | Entry | tuple[str, tuple[Entry, ...]]) -> bytes:
    """Encode a listing, an instance, or an application with its name as XML."""
    if isinstance(content, Entry):
        root = _element(content)
    elif isinstance(content, Snapshot):
        root = Element("applications")
        SubElement(root, "versions__delta").text = str(content.version)
        SubElement(root, "apps__hashcode").text = content.hashcode
        root.extend(_application(name, entries) for name, entries in content.apps.items())
    else:
        root = _application(*content)
    written: bytes = tostring(root, encoding="utf-8")
    return written.partition(b"?>\n")[2] or written


def _fields(entry: Entry) -> dict[str, Any]:
    registration = entry.registration
    fields = {
        "instanceId": registration.id,
        "hostName": registration.host,
        "app": registration.app,
        "appGroupName": registration.group,
        "ipAddr": registration.ip,
        "status": entry.status,
        "overriddenStatus": entry.override,
        "port": _port(registration.port),
        "securePort": _port(registration.secure_port),
        "countryId": registration.country,
        "dataCenterInfo": {"@class": registration.data_center_class, "name": registration.data_center},
        "leaseInfo": {
            "renewalIntervalInSecs": registration.renewal,
            "durationInSecs": registration.duration,
            "registrationTimestamp": entry.registered_at,
            "lastRenewalTimestamp": entry.renewed_at,
            "evictionTimestamp": 0,
            "serviceUpTimestamp": entry.up_at,
        },
        "metadata": dict(registration.metadata) or {"@class": EMPTY_MAP},
        "homePageUrl": registration.home_page,
        "statusPageUrl": registration.status_page,
        "healthCheckUrl": registration.health_check,
        "secureHealthCheckUrl": registration.secure_health_check,
        "vipAddress": registration.vip,
        "secureVipAddress": registration.secure_vip,
        "isCoordinatingDiscoveryServer": "false",
        "lastUpdatedTimestamp": str(entry.changed_at),
        "lastDirtyTimestamp": str(registration.dirty or entry.registered_at),
        "actionType": entry.action,
        "asgName": registration.asg,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _port(port: Port) -> dict[str, Any]:
    return {"$": port.number, "@enabled": str(port.enabled).lower()}


def _application(name: str, entries: tuple[Entry, ...]) -> Element:
    application = Element("application")
    SubElement(application, "name").text = name
    application.extend(_element(entry) for entry in entries)
    return application


def _element(entry: Entry) -> Element:
    instance = Element("instance")
    for key, value in _fields(entry).items():
        tag = "overriddenstatus" if key == "overriddenStatus" else key
        if key in ("port", "securePort"):
            SubElement(instance, tag, enabled=value["@enabled"]).text = str(value["$"])
            continue
        attributes = {"class": value["@class"]} if isinstance(value, dict) and "@class" in value else {}
        element = SubElement(instance, tag, attributes)
        if isinstance(value, dict):
            for inner, text in value.items():
                if inner != "@class":
                    SubElement(element, _tag(inner)).text = str(text)
        else:
            element.text = str(value)
    return instance


_INVALID = re.compile(r"[^A-Za-z0-9.:-]")


def _tag(key: str) -> str:
    """Escape a key to a valid XML name as XStream does.

    `_` is doubled, `$` becomes `_-`, and any other invalid character is replaced by its number.
    """

    def escaped(match: re.Match[str]) -> str:
        return {"_": "__", "$": "_-"}.get(match[0]) or f"_.{ord(match[0]):04x}"

    name = _INVALID.sub(escaped, key).replace(":", "_.003a")
    return name if name[0].isalpha() or name[0] == "_" else f"_.{ord(name[0]):04x}{name[1:]}"


def _key(tag: str) -> str:
    """Return the key from which `_tag` made a tag."""
    return re.sub(r"__|_-|_\.([0-9a-f]{4})", lambda m: chr(int(m[1], 16)) if m[1] else {"__": "_", "_-": "$"}[m[0]], tag)


def _instance_of(root: Element) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for element in root:
        if element.tag in ("port", "securePort"):
            fields[element.tag] = {"$": element.text, "@enabled": element.get("enabled", "true")}
        elif element.tag in ("dataCenterInfo", "leaseInfo", "metadata"):
            inner = {_key(child.tag): child.text or "" for child in element}
            kind = element.get("class") or (_data_center_class(inner) if element.tag == "dataCenterInfo" else None)
            fields[element.tag] = {**({"@class": kind} if kind else {}), **inner}
        elif len(element):
            raise InvalidRegistration(UNREADABLE)
        else:
            fields[element.tag] = element.text
    return fields


def _data_center_class(fields: dict[str, str]) -> str:
    """Return the class of a dataCenterInfo without one, as Go clients write it in XML."""
    return AMAZON if fields.get("name") == "Amazon" else DEFAULT_DATA_CENTER


def _depth(value: Any, at: int = 0) -> int:
    if at > MAX_DEPTH:
        return at
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((_depth(item, at + 1) for item in inner), default=at)
