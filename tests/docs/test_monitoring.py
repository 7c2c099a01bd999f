"""The alert rules and the dashboard of docs/monitoring/ name only metrics and labels that /metrics has."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.routing.traffic_counts import CountKey
from tests.support.app_fixture import build, living
from tests.support.docker_cli import ROOT
from tests.support.prometheus_text import Samples

ALERTS, DASHBOARD = (ROOT / "docs" / "monitoring" / name for name in ("alerts.yml", "grafana.json"))
KEYWORDS = {"sum", "count", "by", "on", "and", "or", "group_left"}
"""Words of the query language that no parenthesis follows directly."""
SCRAPE_LABELS = {"job", "instance"}
"""Labels that Prometheus adds to every sample."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Return a scrape of a Sluice with a service that was deployed and that answered requests."""
    with living(build(tmp_path_factory.mktemp("s"))) as made:
        assert made.deploy().status_code == 200
        made.sluice.traffic_sampler._router.news = Counter(
            {CountKey("web", 1, 2, None): 1, CountKey("web", 1, None, 4): 1, CountKey("web", 0, 5, None): 1}
        )
        made.call(made.sluice.traffic_sampler.sample)
        return Samples(made.client.get("/metrics").text)


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def queries(path: Path) -> list[str]:
    """Return the queries of one of the two files."""
    if path == ALERTS:
        return [rule["expr"] for rule in alerts()]
    annotations = json.loads(DASHBOARD.read_text("utf-8"))["annotations"]["list"]
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())] + [
        each["expr"] for each in annotations
    ]


def metrics_of(query: str) -> set[str]:
    """Return the names of metrics in a query: the words outside of selectors, ranges and lists of labels."""
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on)\s*\([^)]*\)", " ", query)
    return set(re.findall(r"\b[a-z_]\w*\b(?!\s*\()", plain)) - KEYWORDS


def labels_of(query: str) -> Iterator[tuple[str, str]]:
    """Yield metric and label of each matcher."""
    for metric, matchers in re.findall(r"(\w+)\{([^}]*)\}", query):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)):
            yield metric, label


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_and_label_that_a_query_names_exists(path: Path, samples: Samples) -> None:
    assert len(queries(path)) >= 10
    for query in queries(path):
        names = metrics_of(query) - {"up"}
        assert names or "up" in query, query
        assert names <= samples.labels.keys(), query
        assert not names & samples.deprecated, query
        for metric, label in labels_of(query):
            assert label in samples.labels.get(metric, set()) | SCRAPE_LABELS, query
        grouped = {label for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query) for label in re.findall(r"\w+", group)}
        assert grouped <= SCRAPE_LABELS.union(*(samples.labels[name] for name in names)), query


def test_queries_with_a_wrong_metric_or_label_are_found(samples: Samples) -> None:
    query = 'sum by (service) (rate(sluice_gateway_request_total{status="5xx"}[5m])) > 0 and on (service) sluice_services'
    assert metrics_of(query) == {"sluice_gateway_request_total", "sluice_services"}
    assert "sluice_gateway_request_total" not in samples.labels
    assert list(labels_of(query)) == [("sluice_gateway_request_total", "status")]
    assert "status" not in samples.labels["sluice_gateway_requests_total"]


def test_the_ten_alerts_have_a_severity_and_say_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) == 10
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_api_document_lists_every_metric_and_the_monitoring_page_names_no_other(samples: Samples) -> None:
    api, page = ((ROOT / "docs" / name).read_text("utf-8") for name in ("api.md", "monitoring.md"))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in samples.labels}
    assert {family for family in families if f"`{family}`" not in api} == set()
    assert set(re.findall(r"\bsluice_[a-z_]+\b", page)) <= families | samples.labels.keys()


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels())
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in panels()}) == len(panels())
