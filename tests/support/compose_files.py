"""Keys of ten well-known Compose files, counted in the files at the commits named here.

None of their text is included: a service is a line of keys, with the number of entries or ports of a key if that matters.
`document` makes a file of our own with exactly these keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHECK = "healthcheck.test healthcheck.interval healthcheck.timeout healthcheck.retries"
CHECK_5 = f"{CHECK} healthcheck.start_period"
_DEMO = "image container_name deploy.resources.limits.memory restart"
_LOGGED = "logging.driver logging.options"
_BUILT = f"{_DEMO} build environment"
_SUPABASE = "container_name image restart"
_SAMPLES: dict[str, Any] = {
    "build": ".", "command": "serve", "container_name": "mine", "entrypoint": "/entry", "env_file": "mine.env",
    "environment": {"A": "1"}, "expose": [8000], "image": "mine:1", "restart": "always", "secrets": ["mine"],
    "security_opt": ["label=disable"], "shm_size": "64mb", "stop_grace_period": "1m30s", "user": "1000",
    "ulimits": {"nofile": {"soft": 1000, "hard": 1000}},
    "healthcheck.test": ["CMD", "true"], "healthcheck.interval": "5s", "healthcheck.timeout": "5s",
    "healthcheck.retries": 3, "healthcheck.start_period": "10s", "healthcheck.disable": False,
    "deploy.replicas": 1, "deploy.mode": "replicated", "deploy.labels": ["A=B"], "deploy.placement": {"constraints": ["x"]},
    "deploy.update_config.parallelism": 2, "deploy.update_config.delay": "10s",
    "deploy.restart_policy.condition": "on-failure", "deploy.restart_policy.delay": "10s",
    "deploy.restart_policy.max_attempts": 3, "deploy.restart_policy.window": "120s",
    "deploy.resources.limits.memory": "64M", "logging.driver": "json-file", "logging.options": {"max-size": "5m"},
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A known Compose file. `top`: its other top-level keys, with those of declared volumes and networks."""

    repository: str
    path: str
    commit: str
    licence: str
    services: tuple[str, ...]
    top: tuple[str, ...] = ()


TEN = (
    Known(
        "docker/awesome-compose", "nginx-golang-postgres/compose.yaml",
        "1faff33bdc98372ecf006d4401e1692a9d96da91", "CC0-1.0",
        (
            "build secrets depends_on.condition:1",
            f"image restart user secrets volumes environment expose {CHECK}",
            "image volumes.long ports depends_on",
        ),
        ("volumes", "secrets"),
    ),
    Known(
        "dockersamples/example-voting-app", "docker-stack.yml", "0285545512094caa6b2b43774d8a36c853d34839", "Apache-2.0",
        (
            "image ports networks deploy.replicas deploy.update_config.parallelism deploy.update_config.delay"
            " deploy.restart_policy.condition",
            "image volumes networks deploy.placement",
            "image ports networks depends_on deploy.replicas deploy.update_config.parallelism"
            " deploy.restart_policy.condition",
            "image ports networks depends_on deploy.replicas deploy.update_config.parallelism deploy.update_config.delay"
            " deploy.restart_policy.condition",
            "image networks:2 deploy.mode deploy.replicas deploy.labels deploy.restart_policy.condition"
            " deploy.restart_policy.delay deploy.restart_policy.max_attempts deploy.restart_policy.window",
            "image ports stop_grace_period volumes.bind",
        ),
        ("version", "networks", "volumes"),
    ),
    Known(
        "immich-app/immich", "docker/docker-compose.yml", "0126ec8f18365212732fe94bf3a65eb376cb3060", "AGPL-3.0",
        (
            "container_name image volumes.bind:2 env_file ports depends_on:2 restart healthcheck.disable",
            "container_name image volumes env_file restart healthcheck.disable",
            "container_name image healthcheck.test restart",
            "container_name image environment volumes.bind shm_size restart",
        ),
        ("name", "volumes"),
    ),
    Known(
        "langfuse/langfuse", "docker-compose.yml", "00e73ad8b4df1d88ad2e33f122bc280e9c6e113f", "MIT",
        (
            "image restart depends_on.condition:4 ports environment",
            "image restart depends_on.condition:4 ports environment",
            f"image restart user environment volumes:2 ports:2 {CHECK_5}",
            f"image restart entrypoint command environment ports:2 volumes {CHECK_5}",
            f"image restart command ports {CHECK}",
            f"image restart {CHECK} environment ports volumes",
        ),
        ("volumes.driver:4",),
    ),
    Known(
        "mastodon/mastodon", "docker-compose.yml", "004f3aa2356e64a463feff26dda3ed41547ed718", "AGPL-3.0",
        (
            "restart image shm_size networks healthcheck.test volumes.bind environment",
            "restart image networks healthcheck.test volumes.bind",
            "image restart env_file command networks:2 healthcheck.test ports depends_on:2 volumes.bind",
            "image restart env_file command networks:2 healthcheck.test ports depends_on:2",
            "image restart env_file command depends_on:2 networks:2 volumes.bind healthcheck.test",
        ),
        ("networks.internal:1",),
    ),
    Known(
        "n8n-io/n8n-hosting", "docker-compose/withPostgresAndWorker/docker-compose.yml",
        "05356da12a0ead0465e817914ed0e08225873211", "MIT",
        (
            f"image restart environment volumes.bind:2 {CHECK}",
            f"image restart volumes {CHECK}",
            "restart image environment volumes depends_on.condition:2 ports",
            "restart image environment depends_on",
            "restart image environment volumes depends_on command",
            "restart image environment depends_on",
        ),
        ("volumes", "x-shared", "x-runner"),
    ),
    Known(
        "open-telemetry/opentelemetry-demo", "docker-compose.yml", "0095756398fdff5b891d493ed26f00781f2147f6", "Apache-2.0",
        (
            f"{_BUILT} {_LOGGED} depends_on.condition:2",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:2",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:3",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:9",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:1",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:1",
            f"{_BUILT} {_LOGGED} depends_on.condition:2",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:11",
            f"{_BUILT} ports:2 depends_on.condition:5",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:1",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:2",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:2",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:2",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:1",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:3",
            f"{_BUILT} {_LOGGED} ports depends_on.condition:1",
            f"{_DEMO} environment command ports volumes.bind {_LOGGED}",
            f"{_BUILT} ports depends_on.condition:2 volumes.bind",
            f"{_BUILT} {CHECK_5} {_LOGGED}",
            f"{_DEMO} user ports {_LOGGED}",
            f"{_DEMO} command ports:2 environment {_LOGGED}",
            f"{_DEMO} environment volumes.bind:2 ports {_LOGGED}",
            f"{_DEMO} command user volumes.bind:4 ports:2 depends_on.condition:2 {_LOGGED} environment",
            f"{_DEMO} command volumes.bind ports {_LOGGED}",
            f"{_DEMO} environment ulimits ports {CHECK_5} {_LOGGED}",
        ),
        ("networks.name:1", "networks.driver:1", "x-default-logging"),
    ),
    Known(
        "paperless-ngx/paperless-ngx", "docker/compose/docker-compose.postgres.yml",
        "12c84f8237fa51540ccd0d1b34ae1b5e9988e735", "GPL-3.0",
        (
            "image restart volumes",
            "image restart volumes environment",
            "image restart depends_on:2 ports volumes.bind:4 env_file environment",
        ),
        ("volumes",),
    ),
    Known(
        "supabase/supabase", "docker/docker-compose.yml", "00069a4c6fe35a6db32b91015dad24f2fe161302", "Apache-2.0",
        (
            f"{_SUPABASE} {CHECK} depends_on.condition:1 environment volumes.bind:2",
            f"{_SUPABASE} ports:2 volumes.bind depends_on.condition:1 environment entrypoint",
            f"{_SUPABASE} {CHECK} depends_on.condition:2 environment",
            f"{_SUPABASE} depends_on.condition:2 environment command",
            f"{_SUPABASE} depends_on.condition:2 {CHECK_5} environment",
            f"{_SUPABASE} depends_on.condition:3 {CHECK_5} environment volumes.bind",
            f"{_SUPABASE} volumes.bind {CHECK} environment",
            f"{_SUPABASE} depends_on.condition:2 environment",
            f"{_SUPABASE} volumes.bind:2 depends_on.condition:1 environment command",
            f"{_SUPABASE} {CHECK} depends_on.condition:1 environment",
            f"{_SUPABASE} volumes.bind:9 {CHECK} depends_on.condition:1 environment command",
            f"{_SUPABASE} volumes.bind:2 {CHECK} environment command security_opt",
            f"{_SUPABASE} ports:2 volumes.bind {CHECK} depends_on.condition:2 environment command",
        ),
        ("name", "volumes"),
    ),
    Known(
        "umami-software/umami", "docker-compose.yml", "029bb1c1c3c0aea3845b879626612d8969d2a1c0", "MIT",
        (
            f"image ports environment depends_on.condition:1 restart {CHECK}",
            f"image environment volumes restart {CHECK}",
        ),
        ("version", "volumes"),
    ),
)  # fmt: skip


def document(known: Known) -> dict[str, Any]:
    """Return a file with these keys and our own values. Services depend on those listed after them."""
    made: dict[str, Any] = {"services": {}}
    for number, line in enumerate(known.services, 1):
        service: dict[str, Any] = made["services"].setdefault(f"s{number}", {})
        behind = [f"s{number + 1 + n}" for n in range(12)]
        for token in line.split():
            path, _, count = token.partition(":")
            _put(service, path, int(count or 1), behind)
    names = {name for service in made["services"].values() for name in service.get("depends_on") or ()}
    made["services"] |= {name: {"image": "mine:1", "x-sluice": {"manage": False}} for name in names - set(made["services"])}
    made["volumes"], made["networks"] = {"mine": None}, {"n1": None, "n2": None}
    for token in known.top:
        path, _, count = token.partition(":")
        section, _, key = path.partition(".")
        if key:
            value = {"driver": "local", "internal": True, "name": "mine"}[key]
            for number in range(int(count)):
                declared = made[section].setdefault(f"{section}-{number}", None) or {}
                made[section][f"{section}-{number}"] = {**declared, key: value}
        elif section not in made:
            made[section] = {"version": "3", "name": "mine"}.get(section, {})
    for section in ("volumes", "networks"):
        if not any(token.startswith(section) for token in known.top):
            del made[section]
    return made


def _put(service: dict[str, Any], path: str, count: int, behind: list[str]) -> None:
    match path:
        case "ports":
            service["ports"] = [f"{8000 + n}:{8000 + n}" for n in range(count)]
        case "networks":
            service["networks"] = [f"n{n + 1}" for n in range(count)]
        case "volumes":
            service["volumes"] = [f"mine:/data{n}" for n in range(count)]
        case "volumes.bind":
            service["volumes"] = [f"./mine{n}:/data{n}" for n in range(count)]
        case "volumes.long":
            service["volumes"] = [{"type": "bind", "source": "./mine", "target": "/data", "read_only": True}]
        case "depends_on":
            service["depends_on"] = behind[:count]
        case "depends_on.condition":
            service["depends_on"] = {name: {"condition": "service_healthy"} for name in behind[:count]}
        case _:
            *outer, last = path.split(".")
            for name in outer:
                service = service.setdefault(name, {})
            service[last] = _SAMPLES[path]
