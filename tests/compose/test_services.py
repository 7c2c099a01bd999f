"""Translation of a Compose service's keys to fields of Sluice's spec."""

from __future__ import annotations

from typing import Any

import pytest

from services.compose.document import ComposeFinding
from services.compose.service import PROJECT_LABEL
from services.spec import ServiceSpec
from tests.support.compose_reading import complaint, reading, refused, said, service

TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("command: serve --name 'a b'", {"command": ["serve", "--name", "a b"]}),
    ("command: [serve, --port, 80]", {"command": ["serve", "--port", "80"]}),
    ("entrypoint: /entry", {"entrypoint": ["/entry"]}),
    ("user: 0:0", {"user": "0:0"}),
    ("working_dir: /app", {"working_dir": "/app"}),
    ("stop_signal: SIGINT", {"stop_signal": "SIGINT"}),
    ("init: true", {"init": True}),
    ("init: false", {"init": False}),
    ("stop_grace_period: 1m30s", {"stop_grace_period": 90}),
    ("scale: 3", {"replicas": 3}),
    ("restart: unless-stopped", {}),
    ("labels: {'traefik.http.routers.lab.tls.domains[0].main': example.com, caddy.@ws.0_header: Connection *Upgrade*}",
     {"labels": {"traefik.http.routers.lab.tls.domains[0].main": "example.com",
                 "caddy.@ws.0_header": "Connection *Upgrade*", "compose.project": "shop"}}),
    ('environment: ["ConnectionStrings:Default=x=y", 2FA_ISSUER=x]',
     {"environment": {"ConnectionStrings:Default": "x=y", "2FA_ISSUER": "x"}}),
    ("cap_add:\nread_only: false\nulimits: {}", {}),
    ('environment: {A: 1, B: true, C: no, D: 1.10, E: ""}',
     {"environment": {"A": "1", "B": "true", "C": "no", "D": "1.10", "E": ""}}),
    ("environment: [A=1, B=x=y, C=]", {"environment": {"A": "1", "B": "x=y", "C": ""}}),
    ("ports: ['8080:80']", {"port": 80}),
    ("ports: [22:22]", {"port": 22}),
    ("ports: [127.0.0.1:8080:80/tcp, 81:80]", {"port": 80}),
    ("ports: ['[::1]:8080:80']", {"port": 80}),
    ("ports: [3000]", {"port": 3000}),
    ("ports: [{target: 80, published: '8080', host_ip: 127.0.0.1}]", {"port": 80}),
    ("expose: ['8000']", {"port": 8000}),
    ("ports: [80:80, 443:443]\nx-sluice: {port: 80}", {"port": 80}),
    ("ports: [53:53/udp, 6000-6010:6000-6010]\nx-sluice: {port: null}", {"port": None}),
    ("healthcheck: {test: curl -f localhost, interval: 10s, retries: 5}",
     {"healthcheck": {"test": ["CMD-SHELL", "curl -f localhost"], "interval": 10, "retries": 5, "timeout": 30}}),
    ("healthcheck: {test: [CMD, check], timeout: 1500ms, start_period: 0s}",
     {"healthcheck": {"test": ["CMD", "check"], "timeout": 1.5, "start_period": 0}}),
    ("healthcheck: {disable: true}", {"healthcheck": {"disable": True}}),
    ("healthcheck: {test: [NONE]}", {"healthcheck": {"disable": True}}),
    ("healthcheck: {disable: false}", {}),
    ("volumes: ['data:/data']", {"volumes": [{"type": "volume", "source": "shop_data", "target": "/data"}]}),
    ("volumes: ['/srv/x:/x:ro']", {"volumes": [{"type": "bind", "source": "/srv/x", "target": "/x", "read_only": True}]}),
    ("volumes: ['../x:/x']", {"volumes": [{"type": "bind", "source": "/srv/x", "target": "/x"}]}),
    ("volumes: [{type: volume, source: data, target: /d, x-sluice: {shared: true}}]",
     {"volumes": [{"type": "volume", "source": "shop_data", "target": "/d", "shared": True}]}),
    ("volumes: [{type: tmpfs, target: /t}]\ntmpfs: /run",
     {"volumes": [{"type": "tmpfs", "target": "/t"}, {"type": "tmpfs", "target": "/run"}]}),
    ("deploy: {replicas: 3}", {"replicas": 3}),
    ("deploy: {resources: {limits: {cpus: '0.50', memory: 50M, pids: 10}}}",
     {"resources": {"cpus": 0.5, "memory": 50 * 1024**2, "pids": 10}}),
    ("mem_limit: 1g\ndeploy: {resources: {limits: {cpus: 0.5, memory: 1024m}}}",
     {"resources": {"cpus": 0.5, "memory": 1024**3}}),
    ("pids_limit: 10\ndeploy: {resources: {limits: {cpus: 0.5}}}", {"resources": {"cpus": 0.5, "pids": 10}}),
    ("scale: 3\ndeploy: {replicas: 3}", {"replicas": 3}),
    ("ports: [{target: 80, app_protocol: http}]", {"port": 80}),
    ("tty: false\nhostname: null\nannotations: {}\nmem_reservation: null", {}),
    ("cpus: 0.5\nmem_limit: 1g\npids_limit: 10", {"resources": {"cpus": 0.5, "memory": 1024**3, "pids": 10}}),
    ("deploy: {update_config: {parallelism: 2, order: stop-first}}", {"max_surge": 0, "max_unavailable": 2}),
    ("deploy: {update_config: {parallelism: 2}}", {"max_surge": 2, "max_unavailable": 0}),
    ("deploy: {update_config: {parallelism: 0, order: start-first}}", {"max_surge": "100%", "max_unavailable": 0}),
    ("deploy: {update_config: {order: start-first}}", {"max_surge": 1, "max_unavailable": 0}),
    ("deploy: {update_config: {failure_action: pause, monitor: 20s}}",
     {"failure_action": "pause", "min_ready_seconds": 20}),
    ("logging: {driver: journald, options: {tag: web}}", {"logging": {"driver": "journald", "options": {"tag": "web"}}}),
    ("x-sluice: {routes: [{host: shop.example.org}], drain_timeout: 5s}",
     {"routes": [{"host": "shop.example.org"}], "drain_timeout": "5s"}),
    ("healthcheck: {test: curl}\nx-sluice: {healthcheck: {path: /healthz}}", {"healthcheck": {"path": "/healthz"}}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "fields"), TAKEN, ids=[body.replace("\n", "; ")[:60] for body, _ in TAKEN])
def test_compose_key_becomes_field_of_spec(body: str, fields: dict[str, Any]) -> None:
    made = service(body, directory="/srv/shop").fields
    bare = {"image": "web:1", "environment": {}, "volumes": [], "links": [], "networks": []}
    assert made == {**bare, "labels": {PROJECT_LABEL: "shop"}, **fields}
    ServiceSpec.model_validate({name: value for name, value in made.items() if value is not None or name == "port"})


REFUSED: list[tuple[str, str, int, str]] = [
    (
        "mem_limit: 1g\ndeploy:\n  resources: {limits: {memory: 512m}}",
        "mem_limit",
        4,
        "is not the memory of services.web.dep",
    ),
    ("deploy: {replicas: 2}\nscale: 3", "scale", 5, "is not the replicas of services.web.deploy.replicas (line 4)"),
    ("deploy: {x-sluice: {port: 80}}", "deploy.x-sluice", 4, "belongs to a service"),
    ("healthcheck: {test: a, x-sluice: {path: /}}", "healthcheck.x-sluice", 4, "belongs to a service"),
    ("ports: [{target: 80, app_protocol: grpc}]", "ports.0.app_protocol", 4, "the gateway speaks HTTP/1.1"),
    ("env_file: [{path: a.env, required: false, format: ini}]", "env_file.0.format", 4, "must be raw"),
    ("ports: [80:80, 443:443]", "ports", 4, "several ports (80, 443)"),
    ("ports:\n  - 80:80\n  - 53:53/udp", "ports.1", 6, "udp is not supported by the gateway"),
    ("ports: [6000-6010]", "ports.0", 4, "port ranges"),
    ("ports: ['eighty']", "ports.0", 4, "is not a port"),
    ("ports: [{published: 80}]", "ports.0", 4, "needs a target"),
    ("cap_add: [NET_ADMIN]", "cap_add", 4, "not supported"),
    ("privileged: true", "privileged", 4, "never privileged"),
    ("imagee: 1", "imagee", 4, 'did you mean "image"'),
    ("restart: no", "restart", 4, "run jobs by hand"),
    ('restart: "no"', "restart", 4, "run jobs by hand"),
    ("restart: sometimes", "restart", 4, "must be always"),
    ("healthcheck:\n  interval: 5s", "healthcheck", 4, "needs a test"),
    ("healthcheck:\n  test: curl\n  interval: soon", "healthcheck.interval", 6, "duration"),
    ("healthcheck: {test: curl, retries: many}", "healthcheck.retries", 4, "whole number"),
    ("volumes: [/data]", "volumes.0", 4, "anonymous volume"),
    ("volumes: [other:/data]", "volumes.0", 4, 'the volume "other" is not declared'),
    ("volumes: [~/x:/x]", "volumes.0", 4, "write the complete path"),
    ("volumes: [./x:/x]", "volumes.0", 4, "relative path"),
    ("volumes: [data:/data:nocopy]", "volumes.0", 4, '"nocopy" is not supported'),
    ("volumes: [{type: npipe, source: x, target: /x}]", "volumes.0.type", 4, "must be volume, bind or tmpfs"),
    (
        "volumes: [{type: volume, source: data, target: /d, volume: {nocopy: true}}]",
        "volumes.0.volume.nocopy",
        4,
        "not supp",
    ),
    ("tmpfs: ['/run:size=64m']", "tmpfs.0", 4, "options of a tmpfs"),
    ("deploy: {mode: global}", "deploy.mode", 4, "must be replicated"),
    ("deploy: {update_config: {failure_action: continue}}", "deploy.update_config.failure_action", 4, "never continues"),
    ("deploy: {update_config: {order: any}}", "deploy.update_config.order", 4, "start-first or stop-first"),
    ("deploy: {resources: {reservations: {devices: [{}]}}}", "deploy.resources.reservations.devices", 4, "no devices"),
    ("deploy: {restart_policy: {condition: none}}", "deploy.restart_policy.condition", 4, "run jobs by hand"),
    ("deploy: {resources: {limits: {memory: lots}}}", "deploy.resources.limits.memory", 4, "size"),
    ("env_file: web.env", "env_file", 4, "deploy with `sluice deploy -f`"),
    ("environment: {A: '${NOPE}'}", "environment.A", 4, "variable NOPE is not set"),
    ("environment: 5", "environment", 4, "must be a list"),
    ("networks: [other]", "networks", 4, 'the network "other" is not declared'),
    ("networks: {default: {aliases: [x]}}", "networks.default.aliases", 4, "Sluice assigns"),
    ("network_mode: host", "network_mode", 4, "Sluice assigns"),
    ("links: [db]", "links.0", 4, 'service "db" not found'),
    ("depends_on: [db]", "depends_on.0", 4, 'service "db" not found'),
    ('command: "a \'b"', "command", 4, "cannot be split"),
    ("extends: {service: base}", "extends", 4, "docker compose config"),
    ("x-sluice: 5", "x-sluice", 4, "must be a mapping"),
    ("x-sluice: {manage: maybe}", "x-sluice.manage", 4, "true or false"),
    ("user: !mine x", "user", 4, "the tag !mine"),
    ("nonsense:", "nonsense", 4, "unknown key"),
    ("nonsense: false", "nonsense", 4, "unknown key"),
    ("helthcheck: {}", "helthcheck", 4, 'did you mean "healthcheck"'),
    ("deploy: {resources: {limits: {memroy: }}}", "deploy.resources.limits.memroy", 4, 'did you mean "memory"'),
]


@pytest.mark.parametrize(("body", "field", "line", "words"), REFUSED, ids=[f"{row[0][:50]!r}" for row in REFUSED])
def test_unsupported_key_is_refused_with_its_line(body: str, field: str, line: int, words: str) -> None:
    found = complaint(body)
    assert (found[0], found[1]) == (f"services.web.{field}", line)
    assert words in found[2]


def test_all_errors_of_file_are_reported_at_once() -> None:
    found = refused("""
        services:
          web: {image: a, cap_add: [X], read_only: true}
          api:
            build: .
            sysctls: {a: 1}
        include: [other.yaml]
        """)
    assert [(field, line) for field, line, _ in found] == [
        ("include", 7), ("services.web.cap_add", 3), ("services.web.read_only", 3),
        ("services.api.sysctls", 6), ("services.api.build", 5),
    ]  # fmt: skip


def test_implied_keys_are_accepted_with_warning() -> None:
    made = service("""
        container_name: web
        tty: true
        build: .
        ports: ["8080:80"]
        volumes: ["data:/data:Z", "/x:/x:cached"]
        deploy: {placement: {constraints: [a]}, update_config: {delay: 10s}}
        restart: on-failure:3
        cap_add: []
        read_only: false
        """)
    assert sorted(said(made.warnings), key=lambda each: each[1]) == [
        ("services.web.container_name", 4), ("services.web.tty", 5), ("services.web.build", 6),
        ("services.web.ports.0", 7), ("services.web.volumes.0", 8), ("services.web.deploy.placement", 9),
        ("services.web.deploy.update_config.delay", 9), ("services.web.restart", 10),
    ]  # fmt: skip


def test_key_of_a_network_or_volume_without_effect_gives_warning() -> None:
    made = reading("""
        services: {web: {image: web, networks: {back: {priority: 5}}}}
        networks:
          back: {driver: bridge, ipam: {}}
          front:
            driver: macvlan
            driver_opts: {mtu: 1400}
            enable_ipv6: true
        volumes:
          data: {labels: {backup: daily}}
        """)
    assert said(made.warnings) == [
        ("volumes.data.labels", 10), ("networks.front.driver_opts", 7), ("networks.front.enable_ipv6", 8),
        ("networks.front.driver", 6),
    ]  # fmt: skip
    assert said(made.services[0].warnings) == [("services.web.networks.back.priority", 2)]


def test_published_port_gives_no_warning_if_routes_are_given() -> None:
    assert service("ports: ['8080:80']\nx-sluice: {routes: [{path_prefix: /}]}").warnings == []


def test_environment_overrides_env_files_and_bare_name_takes_callers_value() -> None:
    made = service(
        "env_file: [a.env, {path: b.env, required: false}, {path: c.env, required: false}]\nenvironment: [B, C=c, D]",
        env_files={"a.env": {"A": "a", "C": "-"}, "b.env": {"A": "b"}},
        variables={"B": "mine"},
    )
    assert made.fields["environment"] == {"A": "b", "C": "c", "B": "mine"}


def test_invalid_spec_field_is_located_in_file() -> None:
    made = service("""
        volumes:
          - data:/data
          - data:relative
        environment:
          A: x
        deploy: {replicas: 3}
        x-sluice:
          drain_timeout: soon
        """)
    assert made.finding_at("volumes.1.target", "x") == ComposeFinding("services.web.volumes.1.target", 6, "x")
    assert made.finding_at("environment.A", "x") == ComposeFinding("services.web.environment.A", 8, "x")
    assert made.finding_at("replicas", "x") == ComposeFinding("services.web.deploy.replicas", 9, "x")
    assert made.finding_at("drain_timeout", "x") == ComposeFinding("services.web.x-sluice.drain_timeout", 11, "x")
    assert made.finding_at("strategy", "x") == ComposeFinding("services.web.strategy", 2, "x")


def test_volumes_and_networks_have_names_that_compose_gives_them() -> None:
    made = (
        reading(
            """
        name: blog
        services:
          web:
            image: web
            volumes: ["a:/a", "b:/b", "c:/c", "d:/d"]
            networks: [front, back, edge]
          db:
            image: db
            x-sluice: {manage: false}
            networks: [back]
        volumes:
          a:
          b: {name: bee}
          c: {external: true}
          d: {external: {name: dee}}
        networks:
          front:
          back:
          edge: {external: true, name: proxy}
        """,
            project=None,
        )
        .services[0]
        .fields
    )
    assert [volume["source"] for volume in made["volumes"]] == ["blog_a", "bee", "c", "dee"]
    assert made["networks"] == ["blog_back", "proxy"]


def test_volume_with_driver_must_be_external() -> None:
    found = refused("services: {web: {image: a, volumes: [v:/v]}}\nvolumes:\n  v: {driver: nfs}")
    assert [(field, line) for field, line, _ in found] == [("volumes.v.driver", 3)]
    assert reading("services: {web: {image: a, volumes: [v:/v]}}\nvolumes: {v: {driver: nfs, external: true}}").services
