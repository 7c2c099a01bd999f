"""An example of each body, for the documentation."""

from __future__ import annotations

from typing import Any

INSTANCE: dict[str, Any] = {
    "id": "web-r4-1",
    "service": "web",
    "revision": 4,
    "slot": 1,
    "status": "serving",
    "address": "10.203.0.15:8080",
    "host_port": None,
    "container_id": "6c3f0e1d2b4a",
    "node": "host-1",
    "in_flight": 3,
    "restarts": 0,
    "created_at": "2026-11-24T20:15:00.120Z",
    "ready_at": "2026-11-24T20:15:01.480Z",
    "unhealthy_since": None,
    "unhealthy_reason": None,
    "exit_code": None,
    "oom_killed": False,
    "last_probe": {"ok": True, "status": 200, "error": None, "at": "2026-11-24T20:15:01.480Z"},
    "log_tail": None,
}
DEPLOYMENT: dict[str, Any] = {
    "id": 17,
    "service": "web",
    "kind": "deploy",
    "status": "progressing",
    "reason": None,
    "message": "2 of 3 new instances serve",
    "revision": 4,
    "from_revision": 3,
    "strategy": "rolling",
    "profile": "prod",
    "image": "web:1.5",
    "image_id": "sha256:0f3c9a",
    "note": "3f2a9c1",
    "created_by": {"kind": "token", "name": "ci"},
    "created_at": "2026-11-24T20:15:00.000Z",
    "started_at": "2026-11-24T20:15:00.050Z",
    "finished_at": None,
    "deadline_at": "2026-11-24T20:20:01.480Z",
    "progress": {"desired": 3, "ready": 2, "serving": 2, "old_serving": 3, "draining": 0, "failed": 0},
    "traffic": [{"revision": 4, "percent": 40}, {"revision": 3, "percent": 60}],
    "warnings": [],
    "retry_of": None,
    "superseded_by": None,
    "group": None,
    "depends_on": [],
    "instances": [INSTANCE],
    "actions": ["pause", "abort"],
    "links": {"self": "/deployments/17", "events": "/deployments/17/events", "page": "/ui/deployments/17"},
}
SPEC: dict[str, Any] = {
    "image": "web:1.5",
    "port": 8080,
    "environment": {"LOG_LEVEL": "info"},
    "healthcheck": {"path": "/healthz", "interval": "1s"},
    "routes": [{"host": "shop.example.org", "path_prefix": "/"}],
    "resources": {"cpus": 0.5, "memory": "256m"},
}
SERVICE: dict[str, Any] = {
    "name": "web",
    "status": "serving",
    "state": "serving",
    "url": "http://shop.example.org:8080/",
    "internal_url": "http://10.203.0.1:20001",
    "image": "web:1.5",
    "revision": 4,
    "profile": "prod",
    "replicas": 3,
    "serving": 3,
    "deployment": {"id": 17, "kind": "deploy", "status": "succeeded", "reason": None, "message": "3 of 3 instances serve"},
    "warnings": [],
    "spec": SPEC,
    "created_at": "2026-11-01T08:00:00.000Z",
}
REVISION: dict[str, Any] = {
    "service": "web",
    "number": 4,
    "present": True,
    "served": True,
    "image": "web:1.5",
    "image_id": "sha256:0f3c9a",
    "port": 8080,
    "profile": "prod",
    "hash": "9b1f0c2d3e4a5b6c",
    "spec": SPEC,
    "overrides": {},
    "effective": SPEC,
    "healthcheck": {"path": "/healthz", "interval": 1.0},
    "deployment": 17,
    "created_at": "2026-11-24T20:15:00.050Z",
}
DIFF: list[dict[str, Any]] = [
    {"field": "image", "change": "changed", "old": "web:1.4", "new": "web:1.5"},
    {"field": "environment.LOG_LEVEL", "change": "added", "old": None, "new": "info"},
    {"field": "image_id", "change": "changed", "old": "sha256:7be1d2", "new": "sha256:0f3c9a"},
]
REVISION_DIFF: dict[str, Any] = {"service": "web", "revision": 3, "to": 4, "replaces_instances": True, "diff": DIFF}
PREVIEW: dict[str, Any] = {
    "service": "web",
    "kind": "deploy",
    "message": "starts 1 instance, then drains and removes 1",
    "revision": 4,
    "from_revision": 3,
    "replicas": 1,
    "from_replicas": 1,
    "strategy": "rolling",
    "profile": None,
    "image": "web:1.5",
    "image_id": "sha256:0f3c9a",
    "diff": DIFF,
    "warnings": [],
    "unchanged": False,
    "replaces_instances": True,
    "steps": [
        {
            "turn": 1, "action": "start", "instance": "web-r4-1", "slot": 1, "revision": 4,
            "message": "start web-r4-1 and wait until it is ready",
        },
        {
            "turn": 2, "action": "admit", "instance": "web-r4-1", "slot": 1, "revision": 4,
            "message": "route requests to web-r4-1",
        },
        {
            "turn": 3, "action": "withdraw", "instance": "web-r3-1", "slot": 1, "revision": 3,
            "message": "stop routing to web-r3-1 and wait for in-flight requests",
        },
        {"turn": 4, "action": "stop", "instance": "web-r3-1", "slot": 1, "revision": 3, "message": "stop web-r3-1"},
        {"turn": 5, "action": "remove", "instance": "web-r3-1", "slot": 1, "revision": 3, "message": "remove web-r3-1"},
    ],
}  # fmt: skip
EVENT: dict[str, Any] = {
    "id": 812,
    "at": "2026-11-24T20:15:01.490Z",
    "type": "instance_serving",
    "message": "web-r4-1 serves",
    "deployment": 17,
    "service": "web",
    "instance": "web-r4-1",
    "actor": None,
    "data": {"revision": 4, "slot": 1, "status": "serving"},
}
AUDIT: dict[str, Any] = {
    **EVENT,
    "type": "created",
    "message": "deploy requested by ci",
    "instance": None,
    "actor": {"kind": "token", "name": "ci"},
    "data": {"kind": "deploy", "status": "pending"},
    "remote": "127.0.0.1",
    "token": 3,
}
TOKEN: dict[str, Any] = {
    "id": 2,
    "name": "ci",
    "scope": "deploy",
    "services": ["web"],
    "hosts": None,
    "path_prefixes": None,
    "created_at": "2026-11-24T20:00:00.000Z",
    "expires_at": None,
    "last_used_at": None,
}
NEW_TOKEN = {**TOKEN, "token": "sl_" + "…"}
LINK = {"url": "http://127.0.0.1:7080/ui/sign-in?code=…", "expires_at": "2026-11-24T20:45:00.000Z"}
READY: dict[str, Any] = {
    "status": "ready",
    "engine": {"ok": True, "version": "20.10.24", "api_version": "1.41"},
    "network": {"ok": True},
    "gateway": {"ok": True, "version": "3.0.11", "old_workers": [], "outdated": None},
    "store": {"ok": True},
    "store_behind_engine": ["web-r1-1"],
    "unknown_containers": [
        {"name": "sluice-web-r1-1", "instance": "web-r1-1", "remove": "docker rm --force sluice-web-r1-1"}
    ],
}
GATEWAY: dict[str, Any] = {
    "answers": True,
    "version": "3.0.11",
    "uptime": 86400.0,
    "image": "sluice-gateway:0.1.0",
    "outdated": None,
    "upgrading": False,
    "old_workers": [{"pid": 14, "uptime": 7200.0, "replaced_for": 12.0, "upgraded": True}],
}
UPGRADED: dict[str, Any] = {"status": "upgraded", "container_id": "3f2a…", "previous_id": "9b1c…", "seconds": 0.8}
EXAMINATION: dict[str, Any] = {
    "status": "well",
    "findings": [
        {"part": "engine", "status": "ok", "detail": "Docker 20.10.24, API 1.41", "advice": ""},
        {
            "part": "gateway",
            "status": "warning",
            "detail": "HAProxy 3.0.11, up for 3 d, outdated: sluice-gateway:0.2.0 is expected",
            "advice": "Upgrade it without losing requests: `sluice gateway upgrade`.",
        },
    ],
}
VERSION: dict[str, Any] = {"version": "0.1.0", "name": "sluice", "run": 12, "engine": {"version": "20.10.24"}}


def page_of(item: Any) -> dict[str, Any]:
    return {"items": [item], "next": None}


APPLIED: dict[str, Any] = {"group": 5, "deployments": [17, 18]}
COMPOSE = """\
name: shop
services:
  web:
    image: web:1.5
    ports: ["8080"]
    x-sluice: {routes: [{path_prefix: /web}]}
"""
REGISTRY: dict[str, Any] = {
    "applications": [
        {
            "name": "ORDERS",
            "service": "orders",
            "registered": [
                {
                    "id": "orders-r3-1:orders:8080",
                    "status": "UP",
                    "address": "10.203.0.21:8080",
                    "renewed_at": "2026-11-25T16:40:11.120Z",
                    "instance": "orders-r3-1",
                }
            ],
            "shown": [
                {
                    "id": "10.203.0.1:orders:20004",
                    "status": "UP",
                    "address": "10.203.0.1:20004",
                    "renewed_at": "2026-11-25T16:02:40.000Z",
                }
            ],
        }
    ],
    "consumers": [
        {
            "address": "10.203.0.30",
            "identity": "DefaultClient/1.4/10.203.0.30",
            "since": "2026-11-25T16:02:41.007Z",
            "fetched_at": "2026-11-25T16:40:05.300Z",
            "age": 6.2,
            "interval": 30.0,
        }
    ],
}
_TOTALS = {"requests": 1200, "status_4xx": 3, "errors": 6, "error_rate": 0.005, "p50": 0.0051, "p95": 0.03, "p99": 0.19}
FIGURES: dict[str, Any] = {
    "service": "web",
    "step": 10,
    "times": ["2026-11-24T20:15:00.000Z", "2026-11-24T20:15:10.000Z"],
    "totals": _TOTALS,
    "revisions": [
        {
            "revision": 4,
            "totals": _TOTALS,
            "requests_per_second": [60.0, 60.0],
            "error_rate": [0.01, 0.0],
            "p50": [0.005, 0.0052],
            "p95": [0.03, 0.03],
            "p99": [0.2, 0.18],
        }
    ],
}
BUILD: dict[str, Any] = {
    "id": 5,
    "service": "web",
    "status": "succeeded",
    "reason": None,
    "message": "built as web:20261122-101500-3f2a",
    "image": "web:20261122-101500-3f2a",
    "image_id": "sha256:0f3c9a",
    "dockerfile": "Dockerfile",
    "target": None,
    "created_by": {"kind": "token", "name": "ci"},
    "created_at": "2026-11-22T10:15:00.000Z",
    "started_at": "2026-11-22T10:15:00.010Z",
    "finished_at": "2026-11-22T10:15:12.400Z",
    "links": {"self": "/builds/5", "log": "/builds/5/log", "page": "/ui/builds/5"},
}
