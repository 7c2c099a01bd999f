"""Families under the names that they had before; they are removed in the next version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from services.control_metrics.deployments import DeploymentCounts
from services.rollouts.state.status import Kind, Status

OLD_NAMES = {
    "sluice_api_requests": "sluice_http_requests",
    "sluice_api_request_duration_seconds": "sluice_http_request_seconds",
    "sluice_gateway_requests": "sluice_requests",
    "sluice_gateway_request_duration_seconds": "sluice_request_seconds",
}
"""Family → its old name. The type is the same."""
_OLD_LABELS = {"sluice_http_requests": {"code": "status"}}


def deprecated_families(families: Iterable[Metric], deployments: DeploymentCounts) -> Iterator[Metric]:
    """Yield each family that has an old name again, under that name."""
    for family in families:
        if family.name in OLD_NAMES:
            yield _renamed(family, OLD_NAMES[family.name])
        elif family.name == "sluice_reconciles":
            (sample,) = family.samples
            yield GaugeMetricFamily("sluice_loop_turns", _help("sluice_reconciles_total"), value=sample.value)
    yield _deployments(deployments)


def _renamed(family: Metric, old: str) -> Metric:
    renamed = Metric(old, _help(f"{family.name}_total" if family.type == "counter" else family.name), family.type)
    labels = _OLD_LABELS.get(old, {})
    renamed.samples = [
        sample._replace(
            name=old + sample.name.removeprefix(family.name),
            labels={labels.get(label, label): value for label, value in sample.labels.items()},
        )
        for sample in family.samples
    ]
    return renamed


def _deployments(deployments: DeploymentCounts) -> Metric:
    family = GaugeMetricFamily(
        "sluice_deployments",
        _help("sluice_deployments_total and sluice_deployments_active"),
        labels=["kind", "status"],
    )
    numbers: Counter[tuple[str, str]] = Counter()
    for (_, kind, status), number in deployments.numbers.items():
        numbers[kind, status] += number
    for kind in Kind:
        for status in Status:
            family.add_metric([kind, status], numbers[kind, status])
    return family


def _help(names: str) -> str:
    return f"Deprecated, removed in the next version: use {names}."
