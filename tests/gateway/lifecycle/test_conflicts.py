"""Two services in conflict in the store do not keep the others from the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway.config.model import DesiredBackend
from services.gateway.config.render import render, render_backend
from services.gateway.lifecycle.conflicts import drop_conflicting
from services.routing.port import RoutingError
from services.spec import Route
from tests.gateway.config.test_render import SETTINGS
from tests.support.gateway_fixture import service


def checked(wanted: Mapping[str, DesiredBackend]) -> None:
    try:
        render(SETTINGS, [render_backend(each) for each in wanted.values()])
    except ValueError as error:
        raise RoutingError(str(error)) from error


def at(name: str, path: str, port: int) -> DesiredBackend:
    return DesiredBackend(service(name, routes=(Route(path_prefix=path),), internal_port=port))


def test_route_conflict_leaves_the_route_to_the_service_that_had_it() -> None:
    a, b, c = at("a", "/x", 20001), at("b", "/x", 20002), at("c", "/c", 20003)
    before = {"a": at("a", "/a", 20001), "b": b}
    assert drop_conflicting({"a": a, "b": b, "c": c}, before, checked) == {"a": before["a"], "b": b, "c": c}
    assert drop_conflicting({"a": a, "b": b, "c": c}, {}, checked) == {"a": a, "c": c}
    assert drop_conflicting({"a": a, "c": c}, before, checked) == {"a": a, "c": c}
