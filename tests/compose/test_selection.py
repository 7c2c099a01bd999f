"""Services of a file that are deployed, their order, and their links and networks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.compose_reading import reading, refused, said

FILE = """
    services:
      web: {image: w, ports: [80], depends_on: {api: {condition: service_healthy}, db: {condition: service_started}}}
      api: {image: a, ports: [8000], depends_on: [db]}
      db: {image: d, expose: [5432], x-sluice: {manage: false}}
      debug: {image: g, profiles: [dev]}
    """


def names(**given: Any) -> list[str]:
    return [each.name for each in reading(FILE, **given).services]


def test_services_are_ordered_after_their_dependencies() -> None:
    api, web = reading(FILE).services
    assert (api.name, api.depends_on) == ("api", {})
    assert (web.name, web.depends_on) == ("web", {"api": True})


def test_profiles_and_only_select_services() -> None:
    assert names() == ["api", "web"]
    assert names(profiles={"dev"}) == ["api", "debug", "web"]
    assert names(only=["web"]) == ["web"]
    assert names(only=["debug"]) == ["debug"], "who is named needs no profile"
    assert refused(FILE, only=["wbe"])[0][2] == 'service "wbe" not found; did you mean "web"?'
    assert "nothing to deploy" in refused(FILE, only=["db"])[0][2]


def test_managed_services_get_links_and_unmanaged_ones_network_of_compose() -> None:
    api, web = reading(FILE).services
    assert (web.fields["links"], web.fields["networks"]) == (["api"], ["shop_default"])
    assert (api.fields["links"], api.fields["networks"]) == (["web"], ["shop_default"])


def test_service_deployed_alone_has_same_fields_once_others_are_known() -> None:
    whole = {each.name: each.fields for each in reading(FILE).services}
    (alone,) = reading(FILE, only=["web"], known={"api"}).services
    assert alone.fields == whole["web"]


def test_services_still_run_by_compose_are_reached_by_its_network() -> None:
    text = FILE.replace(", x-sluice: {manage: false}", "")
    (alone,) = reading(text, only=["web"]).services
    assert (alone.fields["links"], alone.fields["networks"]) == ([], []), "the linked services are not deployed"
    (moving,) = reading(text, only=["web"], running={"api", "db", "other"}).services
    assert (moving.fields["links"], moving.fields["networks"]) == ([], ["shop_default"])


def test_services_on_different_networks_are_not_linked() -> None:
    a, b, c = reading("""
        services:
          a: {image: x, networks: [one]}
          b: {image: x, networks: [one, two]}
          c: {image: x, networks: [two]}
        networks: {one: , two: {internal: true}}
        """).services
    assert [each.fields["links"] for each in (a, b, c)] == [["b"], ["a", "c"], ["b"]]
    assert [each.fields["networks"] for each in (a, b, c)] == [[], [], []], "Sluice's own network is enough"


def test_optional_dependency_is_marked_as_such() -> None:
    web = reading("""
        services:
          web: {image: w, depends_on: {cache: {condition: service_started, required: false}}}
          cache: {image: c}
        """).services[1]
    assert web.depends_on == {"cache": False}


def test_dependency_cycle_and_dependency_on_job_are_refused() -> None:
    circle = refused("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}")
    assert circle == [("services.a", 1, "depends on itself, by way of a, b")]
    job = "services: {a: {image: x, depends_on: {b: {condition: service_completed_successfully}}}, b: {image: x}}"
    assert refused(job)[0][0] == "services.a.depends_on.b.condition"
    left = job.replace("b: {image: x}", "b: {image: x, x-sluice: {manage: false}}")
    assert reading(left).services[0].depends_on == {}, "it is not waited for where Sluice leaves it alone"


def test_stateful_dependency_gives_warning_to_leave_it_with_compose() -> None:
    warned = reading(
        "services: {web: {image: w, depends_on: [db], ports: [80]}, db: {image: d, volumes: [v:/v]}}\nvolumes: {v: }"
    )
    db, web = warned.services
    assert (said(db.warnings), said(web.warnings)) == ([("services.db", 1)], [])
    assert "manage: false" in db.warnings[0].message


def test_unmanaged_service_may_have_any_key_and_any_name() -> None:
    made = reading("""
        services:
          web: {image: w}
          my_db: {image: "d:${NOPE}", cap_add: [X], build: ., env_file: x, x-sluice: {manage: false}}
        """)
    assert [each.name for each in made.services] == ["web"]


@pytest.mark.parametrize("project", [None, "", "Shop", "-shop", "a" * 64])
def test_project_requires_name(project: str | None) -> None:
    assert refused(FILE, project=project)[0][0] == "name"


def test_name_that_is_no_dns_label_is_refused_with_suggestion() -> None:
    found = refused("services: {My_web.1: {image: w}}")
    assert found[0][2].endswith('rename it to "my-web-1"')


def test_warning_about_file_itself_belongs_to_no_service() -> None:
    made = reading("services: {web: {image: w}}\nnetworks:\n  back: {internal: true}")
    assert said(made.warnings) == [("networks.back.internal", 3)]
