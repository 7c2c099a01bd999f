"""Registrations as Eureka clients send them."""

from __future__ import annotations

from typing import Any

from services.eureka.instance_info import Registration, read

CENTRE = {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"}


def said(id: str = "a", app: Any = "WEB", **fields: Any) -> dict[str, Any]:
    """Return the body of a registration, not yet encoded as JSON."""
    instance = {
        "instanceId": id, "app": app, "hostName": f"host-{id}", "ipAddr": "10.9.0.1", "vipAddress": "web", "status":
        "UP", "port": {"$": 8080, "@enabled": "true"}, "dataCenterInfo": CENTRE, **fields,
    }  # fmt: skip
    return {"instance": {key: value for key, value in instance.items() if value is not ...}}


def registration(id: str = "a", app: str = "WEB", **fields: Any) -> Registration:
    return read(app, said(id, app, **fields))
