"""Bad input of every kind gets a 4xx problem that names the field, and changes nothing.

No case ends in a 500 or reaches the engine or the gateway.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.service_fixture import Json, ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

LONG = "a" * 1_000_000

NAMES: list[Any] = [
    "", " ", "../../etc", "a/b", "a b", "a\nb", "a\r\nserver x 1.2.3.4:80", "Web", "-a", "a-", "1a", "a" * 41, "a.b", "a_b",
    "a\x00b", "ä", "$(reboot)", "`id`", "a;b", "a%0ab", "..", LONG, None, 7, True, [], {}, ["web"],
]  # fmt: skip

FIELDS: dict[str, list[Any]] = {
    "image": ["", "a b", "x\ny", "-v", "--privileged", "a" * 600, LONG, 7, None, [], {"a": 1}, "im\x00age", "$(id)"],
    "port": [0, -1, 65536, "80", 8000.5, True, [], {}, 2**70, "x\n"],
    "replicas": [-1, 101, "3", 1.5, True, [], 2**63],
    "command": ["sh -c x", 7, {}, [7], [None], ["a\x00b"], ["x"] * 300],
    "entrypoint": ["sh", [["sh"]], [{}]],
    "working_dir": ["relative", "/a\nb", 7, "/" + LONG],
    "user": ["a b", "root\n", "x" * 200, 7, "a:b:c"],
    "environment": [
        ["A=b"], {"A\tB": "c"}, {"A=B": "c"}, {"A\n": "c"}, {"": "c"}, {"A": []}, {"A": "x\x00y"}, {"A": LONG},
    ],
    "healthcheck": [
        "/", [], {"path": "healthz"}, {"path": "/x y"}, {"path": "/x\r\nHost: y"}, {"path": "/", "tcp": True},
        {"path": "/", "interval": 0},
        {"path": "/", "retries": 0}, {"path": "/", "timeout": -1}, {"path": "/", "port": 0}, {"test": []},
        {"test": ["rm", "-rf"]},
        {"path": "/", "headers": {"X\nY": "z"}}, {"path": "/", "headers": {"X": "a\r\nY: b"}}, {"pth": "/"},
        {"tcp": "yes\n"}, {"path": "/", "any_below_500": True}, {"any_below_500": False}, {"any_below_500": None},
    ],
    "routes": [
        "/", {"path_prefix": "/"}, [{"path_prefix": "x"}], [{"path_prefix": "/a b"}],
        [{"path_prefix": "/a\nbind *:1"}], [{"host": "a b"}],
        [{"host": "a\nb"}], [{"host": "*"}], [{"host": "a/b"}], [{"pathprefix": "/"}],
        [{"path_prefix": "/"}, {"path_prefix": "/"}],
        [{"path_prefix": "/x", "strip_prefix": "maybe"}], [{"path_prefix": "/" + "x" * 600}],
        [{"path_prefix": "/#"}], [{"path_prefix": '/"'}],
    ],
    "links": ["api", ["a b"], ["../x"], [7], ["a\nb"]],
    "resources": [7, {"cpus": 0}, {"cpus": "many"}, {"memory": "1"}, {"memory": "lots"}, {"pids": 0}, {"gpu": 1}],
    "volumes": [
        "x:/y", ["x"], ["/etc:/etc"], ["../x:/y"], ["x:relative"], [{"source": "x"}],
        [{"type": "npipe", "source": "x", "target": "/y"}],
        [{"type": "bind", "source": "/var/run/docker.sock", "target": "/s"}], ["a b:/x"],
        [{"source": "x", "target": "/a\nb"}],
    ],
    "networks": ["bridge", ["no-such-network"], ["a b"], [7]],
    "labels": [["a=b"], {"sluice.name": "x"}, {"a\tb": "c"}, {"a": 7}, {"": "x"}],
    "logging": ["none", {"driver": "a b"}, {"driver": "json-file", "options": {"a": 7}}],
    "stop_signal": ["KILL -9", 9, "sigterm\n", "$(x)"],
    "init": ["true", 1, {}],
    "stop_grace_period": [-1, "soon", [], "1m\n", True],
    "drain_timeout": [-1, "x", {}, "99999999999999h"],
    "request_timeout": [0, -1, "x"],
    "queue_timeout": [-1, "x"],
    "tunnel_timeout": [0, "x"],
    "upstream_keepalive": ["perhaps", 7],
    "strategy": ["blue_green", "canary", "x", 7],
    "max_surge": [-1, "150%", "x", 1.5, True, "25 %", 1000],
    "max_unavailable": [-1, "%", []],
    "min_ready_seconds": [-1, "x"],
    "progress_deadline_seconds": [0, -1, "x"],
    "failure_action": ["explode", 7],
    "on_conflict": ["fight", 7],
    "revision_history_limit": [0, 101, "x"],
    "profiles": [[], {"a b": {}}, {"x": {"no_such": 1}}, {"x": {"profiles": {}}}, {"x": 7}],
    "profile": [7, "no-such-profile", "a b\n", []],
    "mode": ["x", 7, None],
    "note": [7, [], "x" * 20_000],
    "expected_revision": ["x", -1, 1.5],
    "build": [{"context": "."}],
    "eureka": ["http://x", {}, {"url": "x"}, {"url": "ftp://x/"}, {"url": "http://x", "consumer_staleness": -1}],
    "host_port": ["always", 8080, {"auto": False}, {"auto": True, "exclude": [0]}],
    "advertise": ["unstable", 1],
    "consumer_cache": [-1, "soon"],
    "replcias": [3],
    "__proto__": [{}],
}  # fmt: skip

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a string": b'"web"',
    "a number": b"7",
    "null": b"null",
    "not UTF-8": b'{"service": "\xff\xfe"}',
    "an unpaired surrogate": b'{"service": "\\ud800"}',
    "an unpaired surrogate in a value": b'{"service": "web", "image": "x", "environment": {"A": "\\udfff"}}',
    "deep arrays": b'{"service": "web", "command": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a number without end": b'{"service": "web", "image": "x", "port": ' + b"9" * 10_000 + b"}",
    "infinity": b'{"service": "web", "image": "x", "drain_timeout": Infinity}',
    "not a number": b'{"service": "web", "image": "x", "drain_timeout": NaN}',
    "twice the same key": b'{"service": "web", "service": "../x", "image": "y"}',
    "many fields": b"{" + b",".join(b'"f%d": 1' % n for n in range(20_000)) + b"}",
    "30 MB": b'{"service": "' + b"x" * 30_000_000 + b'"}',
}

PATHS = f"""
GET /deployments/0
GET /deployments/-1
GET /deployments/x
GET /deployments/1%00
GET /deployments/{2**70}
GET /deployments/1/events?limit=0
GET /deployments?limit=x
GET /deployments?limit=9999
GET /deployments?cursor=%00
GET /deployments?cursor=AAAA
GET /deployments?status=lost
GET /deployments?kind=x
GET /services/..%2f..%2fetc
GET /services/%0a
GET /services/%00
GET /services/{"a" * 5000}
GET /services/no-such
GET /services/no-such/revisions/1
GET /instances/no-such
GET /instances/..%2f
GET /instances/no-such/logs?tail=-1
GET /instances/no-such/logs?tail=x
GET /audit?since=yesterday
POST /services/no-such/scale
POST /services/no-such/rollback
POST /services/no-such/restart
DELETE /services/no-such
DELETE /services/a%2fb
POST /deployments/999999999/abort
POST /deployments/x/retry
POST /deployments?wait=-1
POST /deployments?wait=x
DELETE /tokens/999999
DELETE /tokens/x
PUT /deployments
PATCH /services/x
GET /no/such/page
GET /ui/deployments/x
GET /ui/services/%00
"""


class StateUnchangedCheck:
    """State that a refused request must not change: containers, the gateway's files, the history.

    Hidden files of the gateway exist only while others are being replaced.
    """

    def __init__(self, service_fixture: ServiceFixture) -> None:
        self._stage = service_fixture
        self._files = service_fixture.sluice.data / "gateway"

    async def look(self) -> tuple[Any, ...]:
        service_fixture = self._stage
        listed = await service_fixture.docker(
            "ps", "--all", "--quiet", "--filter", f"label=sluice.name={service_fixture.sluice.name}"
        )
        names = sorted(path.name for path in self._files.iterdir() if not path.name.startswith("."))
        files = {name: (self._files / name).read_bytes() for name in names if (self._files / name).is_file()}
        newest = (await service_fixture.get("/deployments", limit=1))["items"]
        services = (await service_fixture.get("/services", limit=200))["items"]
        service_names = sorted(each["name"] for each in services)
        return sorted(listed.split()), files, newest[0]["id"] if newest else 0, service_names


async def test_bad_field_values_are_refused_with_the_name_of_the_field(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=1))
    untouched = StateUnchangedCheck(service_fixture)
    before = await untouched.look()
    wrong = []
    cases = [("service", {"service": name, "image": service_fixture.images.one}) for name in NAMES]
    for field, values in FIELDS.items():
        whole = {"service": f"{service_fixture.service}x", "image": service_fixture.images.one}
        cases += [(field, {**whole, field: value}) for value in values]
    for field, body in cases:
        answer = await _post(service_fixture, json.dumps(body).encode())
        if problem := _why_not(answer, 422, field):
            wrong.append(f"{field}={str(body.get(field))[:60]!r}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert await untouched.look() == before


@pytest.mark.parametrize("what", BODIES)
async def test_malformed_bodies_are_refused(service_fixture: ServiceFixture, what: str) -> None:
    untouched = StateUnchangedCheck(service_fixture)
    before = await untouched.look()
    answer = await _post(service_fixture, BODIES[what])
    assert 400 <= answer.status_code < 500, answer.text[:500]
    if what != "30 MB":  # A 30 MB body is refused before the application sees the request.
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["code"]
    assert await untouched.look() == before


async def test_invalid_paths_and_parameters_are_refused(service_fixture: ServiceFixture) -> None:
    wrong = []
    for method, _, path in (line.partition(" ") for line in PATHS.strip().splitlines()):
        body = b'{"replicas": 1}' if path.endswith("scale") else b"{}"
        answer = await service_fixture.http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        if not 400 <= answer.status_code < 500:
            wrong.append(f"{method} {path[:60]}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_invalid_headers_are_refused(service_fixture: ServiceFixture) -> None:
    body = {"service": f"{service_fixture.service}x", "image": service_fixture.images.one}
    heads = [{"Authorization": "Bearer sl_wrong"}, {"Authorization": "Basic x"}, {"Authorization": "Bearer " + "x" * 5000}]
    for head in heads:
        answer = await service_fixture.http.post("/deployments", json=body, headers=head)
        assert answer.status_code in (401, 431), answer.text
    for head in ({"Idempotency-Key": "x" * 256}, {"X-Registry-Auth": "no base64!"}):
        answer = await service_fixture.http.post("/deployments", content=json.dumps(body), headers=head)
        assert 400 <= answer.status_code < 500, f"{head}: {answer.status_code} {answer.text}"
    assert service_fixture.service + "x" not in [
        each["name"] for each in (await service_fixture.get("/services", limit=200))["items"]
    ]


async def test_valid_fields_that_make_an_invalid_spec_are_refused(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=1, profiles={"small": {"min_ready_seconds": 5}}))
    untouched = StateUnchangedCheck(service_fixture)
    before = await untouched.look()
    bad: list[Json] = [
        {"max_surge": 0, "max_unavailable": 0},
        {"min_ready_seconds": 1000},
        {"profile": "small", "progress_deadline_seconds": 3},
        {"mode": "replace"},
        {"image": None},
        {"healthcheck": {"tcp": True}},
    ]
    for fields in bad:
        answer = await service_fixture.http.post("/deployments", json={"service": service_fixture.service, **fields})
        assert answer.status_code == 422, f"{fields}: {answer.text}"
        assert answer.json()["errors"]
    assert await untouched.look() == before


async def _post(service_fixture: ServiceFixture, body: bytes) -> Any:
    return await service_fixture.http.post("/deployments", content=body, headers={"Content-Type": "application/json"})


def _why_not(answer: Any, status: int, field: str) -> str | None:
    """Return the fault of the refusal; None if it is correct."""
    if answer.status_code != status:
        return f"{answer.status_code} {answer.text[:200]}"
    said = answer.json()
    if not answer.headers["content-type"].startswith("application/problem+json") or not said.get("code"):
        return f"no problem: {answer.text[:200]}"
    if not any(str(error["field"]).split(".")[0].split("[")[0] == field for error in said["errors"]):
        return f"does not name it: {said['errors']}"[:300]
    if len(answer.content) > 20_000:
        return f"an answer of {len(answer.content)} bytes"
    return None
