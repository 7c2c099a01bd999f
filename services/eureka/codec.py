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
from services.eureka.instance_info import UNREADABLE, InvalidRegistration, Port

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


def json_of(what: Snapshot | Entry | tuple[str, tuple[Entry, ...]]) -> bytes:
    """Encode a listing, an instance, or an application with its name as JSON."""
    if isinstance(what, Entry):
        document: dict[str, Any] = {"instance": _fields(what)}
    elif isinstance(what, Snapshot):
        apps = [{"name": name, "instance": [_fields(entry) for entry in entries]} for name, entries in what.apps.items()]
        document = {
            "applications": {"versions__delta": str(what.version), "apps__hashcode": what.hashcode, "application": apps}
        }
    else:
        document = {"application": {"name": what[0], "instance": [_fields(entry) for entry in what[1]]}}
    return json.dumps(document, separators=(",", ":")).encode()


def xml_of(what: Snapshot | Entry | tuple[str, tuple[Entry, ...]]) -> bytes:
    """Encode a listing, an instance, or an application with its name as XML."""
    if isinstance(what, Entry):
        root = _element(what)
    elif isinstance(what, Snapshot):
        root = Element("applications")
        SubElement(root, "versions__delta").text = str(what.version)
        SubElement(root, "apps__hashcode").text = what.hashcode
        root.extend(_application(name, entries) for name, entries in what.apps.items())
    else:
        root = _application(*what)
    written: bytes = tostring(root, encoding="utf-8")
    return written.partition(b"?>\n")[2] or written


def _fields(entry: Entry) -> dict[str, Any]:
    said = entry.registration
    fields = {
        "instanceId": said.id,
        "hostName": said.host,
        "app": said.app,
        "appGroupName": said.group,
        "ipAddr": said.ip,
        "status": entry.status,
        "overriddenStatus": entry.override,
        "port": _port(said.port),
        "securePort": _port(said.secure_port),
        "countryId": said.country,
        "dataCenterInfo": {"@class": said.data_center_class, "name": said.data_center},
        "leaseInfo": {
            "renewalIntervalInSecs": said.renewal,
            "durationInSecs": said.duration,
            "registrationTimestamp": entry.registered_at,
            "lastRenewalTimestamp": entry.renewed_at,
            "evictionTimestamp": 0,
            "serviceUpTimestamp": entry.up_at,
        },
        "metadata": dict(said.metadata) or {"@class": EMPTY_MAP},
        "homePageUrl": said.home_page,
        "statusPageUrl": said.status_page,
        "healthCheckUrl": said.health_check,
        "secureHealthCheckUrl": said.secure_health_check,
        "vipAddress": said.vip,
        "secureVipAddress": said.secure_vip,
        "isCoordinatingDiscoveryServer": "false",
        "lastUpdatedTimestamp": str(entry.changed_at),
        "lastDirtyTimestamp": str(said.dirty or entry.registered_at),
        "actionType": entry.action,
        "asgName": said.asg,
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


_ODD = re.compile(r"[^A-Za-z0-9.:-]")


def _tag(key: str) -> str:
    """Escape a key to a valid XML name as XStream does.

    `_` is doubled, `$` becomes `_-`, and any other invalid character is replaced by its number.
    """

    def escaped(found: re.Match[str]) -> str:
        return {"_": "__", "$": "_-"}.get(found[0]) or f"_.{ord(found[0]):04x}"

    name = _ODD.sub(escaped, key).replace(":", "_.003a")
    return name if name[0].isalpha() or name[0] == "_" else f"_.{ord(name[0]):04x}{name[1:]}"


def _key(tag: str) -> str:
    """Return the key from which `_tag` made a tag."""
    return re.sub(r"__|_-|_\.([0-9a-f]{4})", lambda m: chr(int(m[1], 16)) if m[1] else {"__": "_", "_-": "$"}[m[0]], tag)


def _instance_of(root: Element) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for element in root:
        if element.tag in ("port", "securePort"):
            said[element.tag] = {"$": element.text, "@enabled": element.get("enabled", "true")}
        elif element.tag in ("dataCenterInfo", "leaseInfo", "metadata"):
            inner = {_key(child.tag): child.text or "" for child in element}
            said[element.tag] = {**({"@class": element.get("class")} if element.get("class") else {}), **inner}
        elif len(element):
            raise InvalidRegistration(UNREADABLE)
        else:
            said[element.tag] = element.text
    return said


def _depth(value: Any, at: int = 0) -> int:
    if at > MAX_DEPTH:
        return at
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((_depth(item, at + 1) for item in inner), default=at)
