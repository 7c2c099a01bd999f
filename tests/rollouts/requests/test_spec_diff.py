"""Differences between two specs are listed field by field, without secrets."""

from __future__ import annotations

from services.rollouts.requests.spec_diff import FieldChange, diff_specs


def test_field_is_added_removed_or_changed_and_named_with_dots() -> None:
    old = {"image": "web:1", "environment": {"LEVEL": "info", "OLD": "x"}, "max_surge": 1}
    new = {"image": "web:2", "environment": {"LEVEL": "debug"}, "max_surge": 1, "resources": {"memory": "256m"}}
    assert diff_specs(old, new) == [
        FieldChange("image", "changed", "web:1", "web:2"),
        FieldChange("environment.LEVEL", "changed", "info", "debug"),
        FieldChange("resources.memory", "added", None, "256m"),
        FieldChange("environment.OLD", "removed", "x", None),
    ]


def test_list_is_one_value_and_empty_object_is_ignored() -> None:
    old = {"command": ["a", "b"], "environment": {}}
    new = {"command": ["a", "c"], "environment": {"A": "1"}}
    assert [(change.field, change.change) for change in diff_specs(old, new)] == [
        ("command", "changed"),
        ("environment.A", "added"),
    ]


def test_null_differs_from_absent_field() -> None:
    assert diff_specs({}, {"port": None}) == [FieldChange("port", "added", None, None)]
    assert diff_specs({"port": None}, {"port": 80}) == [FieldChange("port", "changed", None, 80)]


def test_changed_secret_is_reported_as_changed_and_not_shown() -> None:
    old = {"environment": {"API_TOKEN": "one", "DB": "postgres://me:one@db/x", "PASSWORD": "same"}}
    new = {"environment": {"API_TOKEN": "two", "DB": "postgres://me:two@db/x", "PASSWORD": "same"}}
    reported = diff_specs(old, new)
    assert [change.field for change in reported] == ["environment.API_TOKEN", "environment.DB"]
    assert "one" not in repr(reported) and "two" not in repr(reported)


def test_equal_specs_do_not_differ() -> None:
    assert diff_specs({"a": {"b": [1, {"c": None}]}}, {"a": {"b": [1, {"c": None}]}}) == []
