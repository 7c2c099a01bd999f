"""The samples of a text in Prometheus' format."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Samples:
    """Samples by name and labels."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples
        }
        self.deprecated = {
            sample.name for family in families if "Deprecated" in family.documentation for sample in family.samples
        }
        self.labels: dict[str, set[str]] = {}
        """Name → the labels of its samples."""
        for name, labels in self._values:
            self.labels.setdefault(name, set()).update(label for label, _ in labels)

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample; None if there is no such sample."""
        return self._values.get((name, frozenset(labels.items())))

    def names_with(self, **labels: str) -> set[str]:
        """Return the names that have a sample with these labels."""
        return {name for name, found in self._values if labels.items() <= dict(found).items()}
