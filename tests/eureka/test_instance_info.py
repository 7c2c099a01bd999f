"""Accepted registrations, and the errors for others: those of the Java server."""

from __future__ import annotations

from typing import Any

import pytest

from services.eureka.instance_info import (
    MAX_METADATA,
    MAX_METADATA_CHARACTERS,
    MAX_TEXT,
    UNREADABLE,
    InvalidRegistration,
    LeaseStatus,
    Port,
    read,
)
from tests.support.eureka_payloads import CENTRE, registration, said


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, UNREADABLE),
        ([], UNREADABLE),
        ("text", UNREADABLE),
        ({"instance": []}, UNREADABLE),
        ({"instance": {}}, UNREADABLE),
        (said(app=...), UNREADABLE),
        (said(hostName=..., instanceId=...), "Missing instanceId"),
        (said(hostName=...), "Missing hostname"),
        (said(ipAddr=...), "Missing ip address"),
        (said(ipAddr=""), "Missing ip address"),
        (said(app=""), "Missing appName"),
        (said(app="OTHER"), "Mismatched appName, expecting WEB but was OTHER"),
        (said(dataCenterInfo=...), "Missing dataCenterInfo"),
        (said(dataCenterInfo={"@class": "x"}), "Missing dataCenterInfo Name"),
        (said(dataCenterInfo={"@class": "java.lang.Runtime", "name": "MyOwn"}), UNREADABLE),
        (said(dataCenterInfo={**CENTRE, "name": "Elsewhere"}), UNREADABLE),
        (said(dataCenterInfo={"name": "MyOwn"}), UNREADABLE),
        (said(dataCenterInfo=[]), UNREADABLE),
        (said(surprise={"a": [1]}), UNREADABLE),
        (said(port={"$": "many"}), UNREADABLE),
        (said(port={"$": 70_000}), UNREADABLE),
        (said(leaseInfo=[]), UNREADABLE),
        (said(leaseInfo={"durationInSecs": "9" * 40}), UNREADABLE),
        (said(metadata={"a": {"b": 1}}), UNREADABLE),
        (said(metadata={"a": "bell\x07"}), "A value holds a control character"),
        (said(instanceId="a\x00b"), "A value holds a control character"),
        (said(hostName="half a pair \ud800"), "A value holds a control character"),
        (said(hostName="\ufffe"), "A value holds a control character"),
        (said(lastDirtyTimestamp=float("nan")), UNREADABLE),
        (said(hostName="two\nlines"), "A value holds a control character"),
        (said(hostName="h" * (MAX_TEXT + 1)), f"A value is longer than {MAX_TEXT} characters"),
        (said(metadata={str(n): "x" for n in range(MAX_METADATA + 1)}), "Metadata is more than"),
        (said(metadata={"a": "x" * MAX_METADATA_CHARACTERS}), "Metadata is more than"),
        (said(metadata={"k" * (MAX_TEXT + 1): "x"}), f"A value is longer than {MAX_TEXT} characters"),
        (said(metadata={"": "x"}), "A key of the metadata is empty"),
    ],
)
def test_invalid_registration_is_refused_with_the_java_servers_message(document: Any, words: str) -> None:
    with pytest.raises(InvalidRegistration) as refused:
        read("web", document)
    assert str(refused.value).startswith(words)


def test_registrations_that_the_java_server_accepts_are_accepted() -> None:
    assert registration(instanceId=...).id == "host-a"
    assert read("WEB", said(app="web")).app == "WEB"
    assert registration(status="WEIRD").status is LeaseStatus.UNKNOWN
    assert registration(id="a/b c").id == "a/b c"
    assert registration(securePort=...).secure_port == Port(7002, False)
    assert registration(port={"$": "8081", "@enabled": True}).port == Port(8081, True)
    assert registration(unknown="text", sid="na").id == "a"
    assert registration(metadata={"@class": "java.util.Collections$EmptyMap"}).metadata == {}
    assert registration(metadata={"weight": 5, "canary": True, "none": None}).metadata == {
        "weight": "5", "canary": "true", "none": "",
    }  # fmt: skip
    assert registration(dataCenterInfo={**CENTRE, "name": "Amazon"}).data_center == "Amazon"


def test_registration_of_five_fields_is_up_with_leases_of_30_and_90_seconds() -> None:
    fields = {"app": "WEB", "hostName": "h", "ipAddr": "10.9.0.1", "vipAddress": "web", "dataCenterInfo": CENTRE}
    taken = read("WEB", {"instance": fields})
    assert (taken.id, taken.status, taken.renewal, taken.duration) == ("h", LeaseStatus.UP, 30, 90)
    assert read("WEB", {"instance": {**fields, "status": None}}).status is LeaseStatus.UP


@pytest.mark.parametrize("lease", [..., None, {}, {"durationInSecs": 0}, {"durationInSecs": "-5"}])
def test_lease_without_a_valid_duration_lasts_90_seconds(lease: Any) -> None:
    taken = registration(leaseInfo=lease)
    assert (taken.renewal, taken.duration) == (30, 90)


def test_lease_durations_of_the_registration_are_kept() -> None:
    taken = registration(leaseInfo={"renewalIntervalInSecs": "5", "durationInSecs": 15})
    assert (taken.renewal, taken.duration) == (5, 15)
