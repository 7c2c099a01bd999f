"""haproxy.cfg and its maps are rendered from typed values; no value can add a line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.config.health_checks import is_stricter, least_strict_policy
from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.config.render import MAPS, HaproxyConfig, render, render_backend, server_line
from services.gateway.lifecycle.config_files import ConfigFiles
from services.routing.port import Endpoint, RoutedService
from services.spec import Healthcheck, Route

SETTINGS = GatewaySettings("10.203.0.1", "10.203.0.0/22")
TEXT = st.text(max_size=20) | st.sampled_from(
    ["web", "a b", "a\nbind *:1", "x # y", "%[src]", "a;b", "a'b", 'a"b', "\\", "\x00"]
)
PATHS = st.from_regex(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]{0,20}", fullmatch=True)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?(\.[a-z0-9]{1,5})?", fullmatch=True)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
PORTS = st.integers(1, 65535)
HEADERS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True),
    st.from_regex(r"[\x20-\x7e]{0,20}", fullmatch=True),
    max_size=4,
)
CHECKS = st.one_of(
    st.builds(Healthcheck, path=PATHS, headers=HEADERS, port=st.none() | PORTS, interval=st.floats(0.01, 60)),
    st.just(Healthcheck(tcp=True)),
    st.just(Healthcheck(disable=True)),
    st.just(Healthcheck().model_copy(update={"any_below_500": True})),
)


@st.composite
def services(draw: st.DrawFn) -> list[DesiredBackend]:
    """Draw services that do not conflict, each field over its whole range."""
    made = []
    for n, name in enumerate(draw(st.lists(NAMES, unique=True, max_size=3))):
        routes = draw(
            st.lists(st.builds(Route, host=st.none() | HOSTS, path_prefix=PATHS, strip_prefix=st.booleans()), max_size=3)
        )
        unique = {(route.key[0], f"/{name}{route.key[1]}"): route for route in routes}
        service = RoutedService(
            name,
            draw(st.integers(1, 9000)),
            20001 + n,
            routes=tuple(route.model_copy(update={"path_prefix": key[1]}) for key, route in unique.items()),
            linked=draw(st.booleans()),
            request_timeout=draw(st.floats(0.1, 1e5)),
            queue_timeout=draw(st.floats(0, 1e5)),
            upstream_keepalive=draw(st.booleans()),
            retry_with_idempotency_key=draw(st.booleans()),
            healthcheck=draw(st.none() | CHECKS),
        )
        members = {
            f"{name}-r1-{slot}": Endpoint(f"{name}-r1-{slot}", name, f"10.203.1.{slot}", service.port, "c@t", draw(CHECKS))
            for slot in range(1, draw(st.integers(1, 4)))
        }
        made.append(DesiredBackend(service, members))
    return made


def rendered(wanted: list[DesiredBackend]) -> HaproxyConfig:
    return render(SETTINGS, [render_backend(each) for each in wanted])


@settings(max_examples=40)
@given(services())
def test_service_has_two_backends_and_every_route_leads_to_the_live_one(wanted: list[DesiredBackend]) -> None:
    made = rendered(wanted)
    names = [each.name for each in wanted]
    sections = re.findall(r"^(?:backend|frontend) (\S+)", made.config, re.MULTILINE)
    inside = {"public", "nowhere", "held", "moved", "internal", "links", "answers"}
    assert sorted(section for section in sections if section not in inside) == sorted(
        f"{n}.{x}" for n in names for x in "ab"
    )
    assert made.maps["live"] == {name: f"{name}.a" for name in names}
    ways = [*made.maps["routes"].values(), *made.maps["hosts"].values(), *made.maps["links"].values()]
    assert {value.split(":")[0] for value in ways} <= set(names)


@settings(max_examples=40)
@given(services())
def test_config_contains_only_known_lines(wanted: list[DesiredBackend]) -> None:
    made = rendered(wanted)
    known = re.compile(
        r"|(global|defaults \w+( from \w+)?|(frontend|backend) [a-z0-9.]+ from \w+"
        r"|    (log|maxconn|user|group|hard-stop-after|noreuseport|stats|lua-load|set-var|mode|no log|option|timeout|retries"
        r"|retry-on|balance|http-error|http-request|http-response|http-check|tcp-check|srvtcpka-\w+|tcp-request|bind|use_backend|default_backend"
        r"|server|stick-table)\b.*)"
    )
    for line in made.config.split("\n"):
        assert known.fullmatch(line), line
    servers = re.findall(r"^    server (\S+) (\S+)", made.config, re.MULTILINE)
    expected = [(member.id, f"{member.address}:{member.port}") for each in wanted for member in each.endpoints.values()]
    assert sorted(server for server in servers if server[0] != "hold") == sorted(expected)
    binds = re.findall(r"^    bind (\S+)", made.config, re.MULTILINE)
    assert len(binds) == len(set(binds))
    for entries in made.maps.values():
        for key, value in entries.items():
            assert not re.search(r"[\s\x00]", key)
            assert "\n" not in value
            assert not key.startswith("#")


@settings(max_examples=40)
@given(services())
def test_admit_and_withdraw_need_no_reload(wanted: list[DesiredBackend]) -> None:
    full = rendered(wanted)
    for each in wanted:
        for instance in each.endpoints:
            assert full.can_apply_live(render_backend(each.without(instance))) or is_stricter(
                full.backends[each.name].check_policy, render_backend(each.without(instance)).check_policy
            )
        again = DesiredBackend(replace(each.service, queue_timeout=1, routes=()), each.endpoints)
        assert full.can_apply_live(render_backend(again))


@settings(max_examples=40)
@given(services())
def test_config_file_contains_its_inputs(tmp_path_factory: pytest.TempPathFactory, wanted: list[DesiredBackend]) -> None:
    files = ConfigFiles(tmp_path_factory.mktemp("gateway"))
    files.write(rendered(wanted), SETTINGS, wanted)
    assert ConfigFiles(files.directory).read() == (SETTINGS, wanted)


@given(TEXT, TEXT, TEXT)
def test_invalid_name_address_or_id_is_refused(name: str, id: str, address: str) -> None:
    member = Endpoint(id, name, address, 80, "c@t", Healthcheck(path="/"))
    try:
        made = rendered([DesiredBackend(RoutedService(name, 80, 20001), {id: member})])
    except ValueError:
        return
    assert re.fullmatch(r"[a-z][a-z0-9-]*", name)
    assert made.config.count("\n    server ") == made.config.count("hold unix@") + 1


@given(TEXT)
def test_invalid_route_is_refused(text: str) -> None:
    for route in (Route.model_construct(host=None, path_prefix=text), Route.model_construct(host=text, path_prefix="/")):
        try:
            made = rendered([DesiredBackend(RoutedService("web", 80, 20001, routes=(route,)))])
        except ValueError:
            continue
        assert all(re.fullmatch(r"\S+", key) for name in MAPS for key in made.maps[name])


def test_conflict_error_names_both_services() -> None:
    web = RoutedService("web", 80, 20001, routes=(Route(path_prefix="/a"),))
    with pytest.raises(ValueError, match="both use the route /a/"):
        rendered([DesiredBackend(web), DesiredBackend(replace(web, name="api", internal_port=20002))])
    with pytest.raises(ValueError, match="internal port 20001"):
        rendered([DesiredBackend(web), DesiredBackend(replace(web, name="api", routes=()))])
    with pytest.raises(ValueError, match="20002"):
        rendered([DesiredBackend(replace(web, linked=True, port=20002)), DesiredBackend(RoutedService("api", 80, 20002))])


def test_reload_is_needed_only_for_changes_that_the_runtime_api_cannot_apply() -> None:
    web = RoutedService("web", 80, 20001, routes=(Route(path_prefix="/a"),), healthcheck=Healthcheck(path="/up"))
    made = rendered([DesiredBackend(web)])
    for same in (
        replace(web, routes=(Route(path_prefix="/b"),)),
        replace(web, queue_timeout=3),
        replace(web, healthcheck=Healthcheck(path="/other")),
    ):
        assert made.can_apply_live(render_backend(DesiredBackend(same)))
    for other in (
        replace(web, name="new"),
        replace(web, upstream_keepalive=False),
        replace(web, request_timeout=5),
        replace(web, linked=True),
        replace(web, internal_port=20002),
        replace(web, routes=(Route(host="a.test"),)),
        replace(web, healthcheck=Healthcheck(tcp=True)),
    ):
        assert not made.can_apply_live(render_backend(DesiredBackend(other)))


def test_least_strict_health_check_applies_to_the_whole_backend() -> None:
    strict = Healthcheck(path="/up", timeout=1)
    mild = Healthcheck(timeout=5).model_copy(update={"any_below_500": True})
    assert least_strict_policy([strict, mild]).success_rule == "below_500"
    assert least_strict_policy([strict, mild]).timeout == 5
    assert least_strict_policy([strict, mild, Healthcheck(tcp=True)]).success_rule == "connects"
    assert least_strict_policy([strict, Healthcheck(disable=True)]).success_rule == "succeeds"
    assert is_stricter(least_strict_policy([strict]), least_strict_policy([mild]))
    assert not is_stricter(least_strict_policy([mild]), least_strict_policy([strict]))


def test_own_user_agent_of_one_revision_leaves_the_default_to_the_others() -> None:
    own, plain = Healthcheck(path="/", headers={"user-agent": "probe/1"}), Healthcheck(path="/")
    members = {
        f"web-r{n}-1": Endpoint(f"web-r{n}-1", "web", f"10.203.0.{n}", 80, "c@t", check)
        for n, check in enumerate([own, plain], start=1)
    }
    made = rendered([DesiredBackend(RoutedService("web", 80, 20001), members)])
    sends = [line for line in made.config.split("\n") if "http-check send" in line]
    assert [re.findall(r"hdr user-agent (\S+)", line, re.IGNORECASE) for line in sends] == [
        ["%[srv_name,concat(/user-agent),map(/run/gateway/headers.map,sluice-healthcheck)]"]
    ]
    assert made.maps["headers"] == {"web-r1-1/user-agent": "probe/1"}


def test_server_line_contains_all_options_of_a_dynamic_server() -> None:
    member = Endpoint("web-r1-1", "web", "10.203.0.9", 80, "c@t", Healthcheck(path="/", port=81, interval=0.001, retries=5))
    down_at_once = "observe layer4 error-limit 1 on-error mark-down"
    check = f"check inter 100 downinter 100 fall 5 rise 1 {down_at_once} port 81"
    assert server_line(member) == f"web-r1-1 10.203.0.9:80 pool-purge-delay 1s {check}"


def test_config_file_without_valid_inputs_is_ignored(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    assert files.read() is None
    for text in ("", "global\n", "#: {}\n", "#: []\n", '#: {"settings": {}}\n', "#: {\n", "\x00\xff"):
        files.config.write_text(text)
        assert files.read() is None
