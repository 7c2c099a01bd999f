"""Documents exactly as real servers and clients write them.

Captured from Spring Cloud 2025.0.1 on 2026-11-22.
"""

from __future__ import annotations

import json

import pytest

from services.eureka.applications import DeltaAction, Entry, Snapshot
from services.eureka.codec import json_of, parse, xml_of
from services.eureka.instance_info import UNREADABLE, InvalidRegistration, LeaseStatus, read
from tests.support.eureka_payloads import registration

SPRING = (
    b'{"instance":{"instanceId":"svc-a:sample-service:8080","app":"SAMPLE-SERVICE","appGroupName":null,"ipAddr":"172.25.0.3",'
    b'"sid":"na","homePageUrl":"http://svc-a:8080/","statusPageUrl":"http://svc-a:8080/actuator/info",'
    b'"healthCheckUrl":"http://svc-a:8080/actuator/health","secureHealthCheckUrl":null,"vipAddress":"sample-service",'
    b'"secureVipAddress":"sample-service","countryId":1,'
    b'"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"hostName":"svc-a",'
    b'"status":"UP","overriddenStatus":"UNKNOWN","leaseInfo":{"renewalIntervalInSecs":5,"durationInSecs":90,'
    b'"registrationTimestamp":0,"lastRenewalTimestamp":0,"evictionTimestamp":0,"serviceUpTimestamp":0},'
    b'"isCoordinatingDiscoveryServer":false,"lastUpdatedTimestamp":1795343971788,"lastDirtyTimestamp":1795343971788,'
    b'"actionType":null,"asgName":null,"port":{"$":8080,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},'
    b'"metadata":{"management.port":"8080"}}}'
)
ANSWER = (
    '{"applications":{"versions__delta":"1","apps__hashcode":"UP_1_","application":[{"name":"SAMPLE-SERVICE","instance":['
    '{"instanceId":"svc-a:sample-service:8080","hostName":"svc-a","app":"SAMPLE-SERVICE","ipAddr":"172.25.0.3","status":"UP",'
    '"overriddenStatus":"UNKNOWN","port":{"$":8080,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"countryId":1,'
    '"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},'
    '"leaseInfo":{"renewalIntervalInSecs":5,"durationInSecs":90,"registrationTimestamp":1795343971886,'
    '"lastRenewalTimestamp":1795343971886,"evictionTimestamp":0,"serviceUpTimestamp":1795343971887},'
    '"metadata":{"management.port":"8080"},"homePageUrl":"http://svc-a:8080/",'
    '"statusPageUrl":"http://svc-a:8080/actuator/info","healthCheckUrl":"http://svc-a:8080/actuator/health",'
    '"vipAddress":"sample-service","secureVipAddress":"sample-service","isCoordinatingDiscoveryServer":"false",'
    '"lastUpdatedTimestamp":"1795343971887","lastDirtyTimestamp":"1795343971788","actionType":"ADDED"}]}]}}'
)
XML = (
    b"<instance><instanceId>x1</instanceId><hostName>h</hostName><app>T</app><ipAddr>10.0.0.1</ipAddr>"
    b"<status>UP</status><overriddenstatus>UNKNOWN</overriddenstatus>"
    b'<port enabled="true">1</port><securePort enabled="false">443</securePort><countryId>1</countryId>'
    b'<dataCenterInfo class="com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"><name>MyOwn</name></dataCenterInfo>'
    b"<metadata><a__b>1</a__b></metadata><vipAddress>t</vipAddress></instance>"
)


def spring() -> Entry:
    taken = read("SAMPLE-SERVICE", parse(SPRING, xml=False))
    at = 1795343971886
    return Entry(taken, LeaseStatus.UP, registered_at=at, renewed_at=at, up_at=at + 1, changed_at=at + 1)


def test_spring_registration_is_returned_as_the_java_server_writes_it() -> None:
    assert json_of(Snapshot(1, "UP_1_", {"SAMPLE-SERVICE": (spring(),)})).decode() == ANSWER


def test_json_lists_stay_lists_for_one_element_and_for_none() -> None:
    assert json.loads(json_of(Snapshot(1, "", {})))["applications"]["application"] == []
    (application,) = json.loads(json_of(Snapshot(1, "UP_1_", {"A": (spring(),)})))["applications"]["application"]
    assert len(application["instance"]) == 1


def test_json_contains_only_keys_that_springs_strict_parser_knows() -> None:
    allowed = {
        "instanceId", "app", "appGroupName", "ipAddr", "sid", "port", "securePort", "homePageUrl", "statusPageUrl",
        "healthCheckUrl", "secureHealthCheckUrl", "vipAddress", "secureVipAddress", "countryId", "dataCenterInfo",
        "hostName", "status", "overriddenstatus", "overriddenStatus", "leaseInfo", "isCoordinatingDiscoveryServer",
        "metadata", "lastUpdatedTimestamp", "lastDirtyTimestamp", "actionType", "asgName",
    }  # fmt: skip
    everything = registration(appGroupName="g", asgName="asg", secureHealthCheckUrl="https://h/", extra="ignored")
    written = json.loads(json_of(Entry(everything, LeaseStatus.UP, action=DeltaAction.MODIFIED)))["instance"]
    assert set(written) <= allowed
    assert set(written["dataCenterInfo"]) == {"@class", "name"}


def test_xml_is_read_and_written_like_the_java_server() -> None:
    taken = read("T", parse(XML, xml=True))
    assert (taken.id, taken.port.number, taken.secure_port.enabled, taken.metadata) == ("x1", 1, False, {"a_b": "1"})
    written = xml_of(Entry(taken, LeaseStatus.UP))
    assert written.startswith(b"<instance><instanceId>x1</instanceId><hostName>h</hostName>")
    for part in (
        b"<overriddenstatus>UNKNOWN</overriddenstatus>",
        b'<port enabled="true">1</port>',
        b"<metadata><a__b>1</a__b></metadata>",
        b'class="com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"><name>MyOwn</name></dataCenterInfo>',
    ):
        assert part in written
    empty = xml_of(Entry(registration(), LeaseStatus.UP))
    assert b'<metadata class="java.util.Collections$EmptyMap" />' in empty
    assert xml_of(Snapshot(3, "UP_1_", {})).startswith(
        b"<applications><versions__delta>3</versions__delta><apps__hashcode>UP_1_"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("MyOwn", "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"), ("Amazon", "com.netflix.appinfo.AmazonInfo")],
)
def test_xml_without_class_of_the_data_center_gets_the_class_of_its_name(name: str, kind: str) -> None:
    body = (
        "<instance><hostName>h</hostName><app>T</app><ipAddr>10.9.0.1</ipAddr>"
        f"<dataCenterInfo><name>{name}</name><metadata></metadata></dataCenterInfo></instance>"
    )
    taken = read("T", parse(body.encode(), xml=True))
    assert (taken.status, taken.data_center, taken.data_center_class) == (LeaseStatus.UP, name, kind)


@pytest.mark.parametrize("key", ["a_b", "a b", "1st", "$x", "über", "a:b", "a/b", "-dash", "<tag>"])
def test_metadata_keys_are_encoded_as_legal_xml_and_decoded_again(key: str) -> None:
    written = xml_of(Entry(registration(metadata={key: "value & <more>"}), LeaseStatus.UP))
    assert read("WEB", parse(written, xml=True)).metadata == {key: "value & <more>"}


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<instance><app>&b;</app></instance>"
)
FILE = b'<!DOCTYPE i [<!ENTITY x SYSTEM "file:///etc/passwd">]><instance><app>&x;</app></instance>'


@pytest.mark.parametrize(
    ("body", "xml"),
    [
        (BOMB, True),
        (FILE, True),
        (b"<instance><app>", True),
        (b"<instance>" + b"<a>" * 7000 + b"</a>" * 7000 + b"</instance>", True),
        (b"<?xml version='1.0' encoding='nonsense'?><instance/>", True),
        (b"<?xml version='1.0' encoding='utf-7'?><instance/>", True),
        (b"<instance><app><deep>x</deep></app></instance>", True),
        (b"", True),
        (b"", False),
        (b"not json", False),
        (b"[]", False),
        (b'{"instance":' * 2000, False),
        (b'{"instance":' + b"[" * 100_000, False),
        (b'{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":{"j":1}}}}}}}}}}', False),
        (b"\xff\xfe", False),
        (b'{"instance":{"port":{"$":' + b"1" * 5000 + b"}}}", False),
    ],
)
def test_xml_bombs_and_malformed_bodies_are_refused(body: bytes, xml: bool) -> None:
    with pytest.raises(InvalidRegistration, match=UNREADABLE.replace("{", r"\{")):
        parse(body, xml=xml)
