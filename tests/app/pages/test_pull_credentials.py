"""Registry credentials of pulls are out of reach of every page and presenter."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.pages import render
from services.rollouts.requests.pull_credentials import PullCredentials
from tests.support.dashboard_fixture import DashboardFixture

PATHS = ("/ui/", "/ui/services/web", "/ui/deployments/1", "/ui/history", "/ui/audit", "/ui/tokens", "/ui/registry")


def reachable(roots: Iterable[object]) -> Iterator[object]:
    """Yield all objects that the code that holds `roots` can follow to: attributes, items and closures.

    Globals of modules and of functions are left out: they are the code's own, not what it was given.
    """
    seen, waiting = set[int](), deque(roots)
    while waiting:
        each = waiting.popleft()
        if id(each) in seen or isinstance(each, type | ModuleType):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, FunctionType):
            waiting += [each.__closure__, each.__defaults__, each.__kwdefaults__]
        else:
            waiting += gc.get_referents(each)


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that collects every context handed to a template."""
    collected: list[Any] = []
    for name in ("page", "fragments", "row"):
        original = getattr(render, name)

        def collect(template: Any, context: Any, *rest: Any, original: Any = original) -> Any:
            collected.append(context)
            return original(template, context, *rest)

        monkeypatch.setattr(render, name, collect)
    return collected


def test_pull_credentials_are_not_reachable_from_pages_and_presenters(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient, contexts: list[Any]
) -> None:
    dashboard_fixture.service()
    dashboard_fixture.credentials.put(dashboard_fixture.deployment(), "c2VjcmV0")
    for path in PATHS:
        assert admin_browser.get(path).status_code == 200, path
    assert len(contexts) > len(PATHS)
    for each in reachable([dashboard_fixture.sluice.presenter_context, *contexts]):
        assert not isinstance(each, PullCredentials)
        assert not (isinstance(each, str) and each == "c2VjcmV0")


def test_pull_credentials_are_found_where_they_are_held(dashboard_fixture: DashboardFixture) -> None:
    assert dashboard_fixture.credentials in list(reachable([dashboard_fixture.sluice.submitter]))
    assert "c2VjcmV0" not in repr(dashboard_fixture.credentials)
