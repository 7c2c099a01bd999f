"""Errors of routers count against a deployment once they have lasted too long."""

from __future__ import annotations

from services.rollouts.reconciler.operations import PUBLICATION
from services.rollouts.reconciler.router_errors import ROUTER_ERROR_TIMEOUT, RouterErrors
from services.routing.port import RoutingError


def test_error_persists_after_the_timeout_since_its_first_occurrence() -> None:
    errors = RouterErrors()
    errors.record("web-r1-1", 100, RoutingError("first"))
    errors.record("web-r1-1", 120, RoutingError("second"))
    assert errors.of_instances(100 + ROUTER_ERROR_TIMEOUT - 1) is None
    assert errors.of_instances(100 + ROUTER_ERROR_TIMEOUT) == "second"
    assert errors.of_publication(200) is None


def test_lasting_error_persists_at_once() -> None:
    errors = RouterErrors()
    errors.record(PUBLICATION, 100, RoutingError("in use", lasting=True))
    assert (errors.of_publication(100), errors.of_instances(100)) == ("in use", None)


def test_success_and_removal_of_the_instance_clear_its_error() -> None:
    errors = RouterErrors()
    for key in (PUBLICATION, "web-r1-1", "web-r1-2"):
        errors.record(key, 0, RoutingError(key, lasting=True))
    errors.clear("web-r1-1")
    assert errors.of_instances(0) == "web-r1-2"
    errors.retain({"web-r1-1"})
    assert (errors.of_instances(0), errors.of_publication(0)) == (None, PUBLICATION)
