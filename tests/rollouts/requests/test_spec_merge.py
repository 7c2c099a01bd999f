"""Merge of a request with the current spec: RFC 7396, profiles as layers, replicas apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rollouts.requests.spec_merge import Layers, apply_layers, combine_patches, merge_patch

RFC_7396 = [  # appendix A
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
texts = st.dictionaries(st.sampled_from("xyz"), st.none() | st.text(max_size=2), max_size=3)
objects = st.dictionaries(st.sampled_from("abc"), json, max_size=3)


def profiles(**layers: dict[str, Any]) -> dict[str, Any]:
    return {"image": "web:1", "environment": {"LEVEL": "info"}, "profiles": layers}


def deploy(
    present: Layers | None, fields: dict[str, Any], *named: str | None, mode: str = "merge"
) -> tuple[Layers, int | None]:
    """Apply a request's fields to the current layers; `named` is the profile that the request names, if any."""
    return apply_layers(present, fields, mode, bool(named), named[0] if named else None)


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_patch_matches_vectors_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@given(objects, objects)
def test_merge_patch_is_idempotent_and_changes_no_argument(target: dict[str, Any], patch: dict[str, Any]) -> None:
    retained = repr((target, patch))
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert repr((target, patch)) == retained


patches = st.fixed_dictionaries(
    {}, optional={"image": st.none() | st.text(max_size=2), "environment": texts, "labels": texts}
)


@given(patches, patches, patches)
def test_combined_patches_equal_patches_in_sequence(
    target: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert merge_patch(target, combine_patches(first, second)) == merge_patch(merge_patch(target, first), second)


def test_null_port_makes_worker_and_differs_from_absent_port() -> None:
    assert merge_patch({"image": "web:1", "port": 8000}, {"port": None}) == {"image": "web:1", "port": None}


def test_null_port_inside_field_removes_like_any_other() -> None:
    before = {"healthcheck": {"path": "/up", "port": 9000}}
    assert merge_patch(before, {"healthcheck": {"port": None}}) == {"healthcheck": {"path": "/up"}}


def test_null_port_in_profile_makes_worker() -> None:
    layers, _ = deploy(None, {"image": "web:1", "port": 8000, "profiles": {"batch": {"port": None}}}, "batch")
    assert layers.effective()["port"] is None


def test_body_is_merged_over_current_spec() -> None:
    present, _ = deploy(None, {"image": "web:1", "environment": {"A": "1", "B": "2"}})
    layers, _ = deploy(present, {"image": "web:2", "environment": {"B": None, "C": "3"}})
    assert layers.effective() == {"image": "web:2", "environment": {"A": "1", "C": "3"}}


def test_replace_mode_takes_body_as_whole_spec() -> None:
    present, _ = deploy(None, {"image": "web:1", "environment": {"A": "1"}})
    layers, _ = deploy(present, {"image": "web:2"}, mode="replace")
    assert layers.effective() == {"image": "web:2"}


def test_profile_overrides_spec_and_request_overrides_both() -> None:
    spec = profiles(prod={"environment": {"LEVEL": "warning", "WORKERS": "4"}})
    present, _ = deploy(None, spec, "prod")
    assert present.effective()["environment"] == {"LEVEL": "warning", "WORKERS": "4"}
    layers, _ = deploy(present, {"environment": {"LEVEL": "debug"}})
    assert layers.effective()["environment"] == {"LEVEL": "debug", "WORKERS": "4"}


def test_profile_is_never_merged_into_base() -> None:
    present, _ = deploy(None, profiles(prod={"environment": {"LEVEL": "warning"}}), "prod")
    layers, _ = deploy(present, {"image": "web:2"})
    assert layers.base["environment"] == {"LEVEL": "info"}
    without, _ = deploy(layers, {}, None)
    assert without.effective()["environment"] == {"LEVEL": "info"}


def test_profile_stays_when_request_names_none() -> None:
    present, _ = deploy(None, profiles(prod={"environment": {"LEVEL": "warning"}}), "prod")
    layers, _ = deploy(present, {"image": "web:2"})
    assert layers.profile == "prod"


def test_named_profile_replaces_previous_profile() -> None:
    spec = profiles(local={"environment": {"DEBUG": "1"}}, prod={"environment": {"LEVEL": "warning"}})
    present, _ = deploy(None, spec, "local")
    layers, _ = deploy(present, {}, "prod")
    assert layers.effective()["environment"] == {"LEVEL": "warning"}


def test_removal_of_field_of_profile_persists() -> None:
    present, _ = deploy(None, profiles(prod={"environment": {"WORKERS": "4"}}), "prod")
    layers, _ = deploy(present, {"environment": {"WORKERS": None}})
    assert layers.effective()["environment"] == {"LEVEL": "info"}
    later, _ = deploy(layers, {"image": "web:2"})
    assert later.effective()["environment"] == {"LEVEL": "info"}


def test_null_profile_in_spec_removes_profile() -> None:
    present, _ = deploy(None, profiles(local={"image": "web:dev"}, prod={}))
    layers, _ = deploy(present, {"profiles": {"local": None}})
    assert set(layers.base["profiles"]) == {"prod"}


def test_replicas_belong_to_service_and_not_to_spec() -> None:
    layers, replicas = deploy(None, {"image": "web:1", "replicas": 5})
    assert replicas == 5
    assert "replicas" not in layers.base and "replicas" not in layers.effective()


def test_image_only_deployment_sets_no_replicas() -> None:
    present, _ = deploy(None, {"image": "web:1", "replicas": 5})
    assert deploy(present, {"image": "web:2"})[1] is None


def test_named_profile_sets_replicas_unless_body_does() -> None:
    spec = profiles(prod={"replicas": 6})
    assert deploy(None, spec, "prod")[1] == 6
    assert deploy(None, {**spec, "replicas": 2}, "prod")[1] == 2
    present, _ = deploy(None, spec, "prod")
    assert deploy(present, {"image": "web:2"})[1] is None
    assert "replicas" not in present.effective()
