"""Conversion between Sluice's types and the engine's JSON, in both directions (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from services.engine.port import ContainerState, ContainerView, HealthResult, InstanceSpec
from services.spec import Healthcheck, VolumeMount

NAME, SERVICE, REVISION, DEPLOYMENT = "sluice.name", "sluice.service", "sluice.revision", "sluice.deployment"
SLOT, HASH, INSTANCE, ROLE = "sluice.slot", "sluice.hash", "sluice.instance", "sluice.role"
BUILT = "sluice.built"
"""Label of images that Sluice built; its value is the tag that Sluice gave the image."""
RESTART_ALWAYS: Any = {"Name": "always"}
RESTART_NEVER: Any = {"Name": "no"}

NANOSECONDS = 1_000_000_000
_NEVER_STARTED = "0001-01-01T"
_PORT_TAKEN = ("port is already allocated", "bind: address already in use")
_NO_CAPACITY = (
    "address already in use",
    "exchange full",
    "cannot allocate memory",
    "out of memory",
    "no space left on device",
)
_NUMBER = re.compile(r"[0-9]{1,9}")
_INIT_PROGRAM = "docker-init"
"""The program that the engine runs as process 1 of a container with `init`."""
_DECIMALS = re.compile(r"(\.\d{6})\d+")
"""Decimals of the engine's time of a health check; Python reads six of the nine."""
_MAX_TEST_OUTPUT = 300
_STATES: dict[str, ContainerState] = {
    "created": "created",
    "running": "running",
    "paused": "running",
    "restarting": "running",
}


def container_config(
    spec: InstanceSpec,
    name: str,
    network: str,
    *,
    image_labels: Mapping[str, str] = MappingProxyType({}),
    keep_net_raw: bool = False,
) -> dict[str, Any]:
    """Return the body of `POST /containers/create`.

    Extra networks are joined afterwards, because old engines accept only one network here.
    """
    fields = spec.fields
    environment = {
        **fields.environment,
        "SLUICE_INSTANCE": spec.id,
        "SLUICE_SLOT": str(spec.slot),
        "SLUICE_SERVICE": spec.service,
        "SLUICE_REVISION": str(spec.revision),
        **({"SERVER_PORT": str(spec.host_port)} if spec.host_port is not None else {}),
    }
    published = {f"{spec.host_port}/tcp": [{"HostPort": str(spec.host_port)}]} if spec.host_port is not None else None
    limits = fields.resources
    host = {
        "NetworkMode": network,
        "RestartPolicy": RESTART_NEVER,
        "PortBindings": published,
        "LogConfig": {"Type": spec.logging.driver, "Config": dict(spec.logging.options)},
        "ExtraHosts": [f"{host}:{address}" for host, address in spec.hosts.items()],
        "Mounts": [_mount(volume, name) for volume in fields.volumes],
        "NanoCpus": round(limits.cpus * NANOSECONDS) if limits and limits.cpus else None,
        "Memory": limits.memory if limits else None,
        "PidsLimit": limits.pids if limits else None,
        "Init": fields.init or None,
        **restrictions(keep_net_raw=keep_net_raw),
    }
    body: dict[str, Any] = {
        "Image": spec.image_id,
        "Hostname": spec.id,
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Cmd": fields.command,
        "Entrypoint": fields.entrypoint,
        "WorkingDir": fields.working_dir,
        "User": fields.user,
        "StopSignal": fields.stop_signal,
        "Healthcheck": _healthcheck(spec.healthcheck) if spec.healthcheck else None,
        "ExposedPorts": {port: {} for port in published} if published else None,
        "Labels": {**fields.labels, **mask_image_labels(labels_of(spec, name), image_labels)},
        "HostConfig": _without_none(host),
        "NetworkingConfig": {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": spec.address}}}},
    }
    return _without_none(body)


def labels_of(spec: InstanceSpec, name: str) -> dict[str, str]:
    return {
        NAME: name,
        SERVICE: spec.service,
        REVISION: str(spec.revision),
        DEPLOYMENT: str(spec.deployment),
        SLOT: str(spec.slot),
        HASH: spec.hash,
        INSTANCE: spec.id,
    }


def mask_image_labels(labels: Mapping[str, str], image_labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return `labels`, plus an empty value for every other label of Sluice's that the image would pass on."""
    inherited = [label for label in image_labels or {} if label.startswith("sluice.")]
    return {**dict.fromkeys(inherited, ""), **labels}


def restrictions(*, keep_net_raw: bool = False) -> dict[str, Any]:
    """Return the restrictions of every container: no privileges through setuid files, no raw packets.

    Raw packets could forge those of another instance.
    """
    denied: dict[str, Any] = {"SecurityOpt": ["no-new-privileges:true"]}
    return denied if keep_net_raw else {**denied, "CapDrop": ["NET_RAW"]}


def is_reserved(network: Mapping[str, Any]) -> bool:
    """Return True if no service may join the network.

    Those are the host's network, `none`, and the instances' network of any Sluice. A gateway and a registry answer
    any client that has an address on their network.
    """
    return network["Driver"] in ("host", "null") or (network.get("Labels") or {}).get(NAME) == network["Name"]


def image_labels(client: Any, image: str) -> Mapping[str, str]:
    """Return the labels that a container would inherit from an image.

    Raises APIError if there is no such image.
    """
    labels: Mapping[str, str] = (client.inspect_image(image)["Config"] or {}).get("Labels") or {}
    return labels


def parse_container(found: Mapping[str, Any], name: str, network: str) -> ContainerView | None:
    """Parse the inspection of a container.

    Return None if it does not have the labels of an instance of the Sluice called `name`. `docker commit` copies labels into
    an image, and so into containers that Sluice did not create: the store's ids tell them apart.
    """
    labels = found["Config"].get("Labels") or {}
    instance = parse_instance(labels, name)
    if instance is None:
        return None
    state = found["State"]
    health = state.get("Health") or {}
    endpoint = (found["NetworkSettings"].get("Networks") or {}).get(network) or {}
    # A container whose start failed has an exit code, and the status "removing", without ever having run.
    container_state = "created" if state["StartedAt"].startswith(_NEVER_STARTED) else _STATES.get(state["Status"], "exited")
    return ContainerView(
        instance=instance,
        service=labels[SERVICE],
        revision=int(labels[REVISION]),
        deployment=int(labels[DEPLOYMENT]),
        slot=int(labels[SLOT]),
        hash=labels[HASH],
        container_id=found["Id"],
        state=container_state,
        started_at=state["StartedAt"],
        address=(endpoint.get("IPAMConfig") or {}).get("IPv4Address") or endpoint.get("IPAddress") or None,
        exit_code=state["ExitCode"] if container_state == "exited" else None,
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(found.get("RestartCount") or 0),
        health=health.get("Status") or "none",
        last_test=_last_test(health),
        paused=state["Status"] == "paused",
        restarting=state["Status"] == "restarting",
        auto_restart=found["HostConfig"]["RestartPolicy"]["Name"] == RESTART_ALWAYS["Name"],
        name=found["Name"].removeprefix("/"),
        renamed=found["Name"] != f"/{name}-{instance}",
    )


def parse_instance(labels: Mapping[str, str], name: str) -> str | None:
    """Return the instance's id, None if these are not the labels of an instance of the Sluice `name`."""
    numbers = (labels.get(key, "") for key in (REVISION, DEPLOYMENT, SLOT))
    if labels.get(NAME) != name or HASH not in labels or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    service, _, numbered = labels.get(INSTANCE, "").rpartition("-r")
    revision, _, number = numbered.partition("-")
    fits = service and service == labels.get(SERVICE) and _NUMBER.fullmatch(revision) and _NUMBER.fullmatch(number)
    return labels[INSTANCE] if fits else None


def parse_error(text: str) -> tuple[str, str]:
    """Return the message and the reason of a refusal by the engine."""
    message = text.strip()
    for reason, patterns in (("port_taken", _PORT_TAKEN), ("no_capacity", _NO_CAPACITY)):
        if any(pattern in message.lower() for pattern in patterns):
            return message, reason
    if _INIT_PROGRAM in message:
        message = f"`init: true` is not possible: the engine's host has no {_INIT_PROGRAM}; install it there. {message}"
    return message, "engine_error"


def nanoseconds(timestamp: str) -> int:
    """Convert the engine's RFC 3339 text (UTC, up to nine decimals) to nanoseconds since the epoch."""
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * NANOSECONDS + int(fraction.ljust(9, "0")[:9] or 0)


def _last_test(health: Mapping[str, Any]) -> HealthResult | None:
    runs = health.get("Log") or []
    if not runs:
        return None
    ended = _DECIMALS.sub(r"\1", runs[-1]["End"])
    return HealthResult(
        int(runs[-1]["ExitCode"]),
        runs[-1]["Output"].strip()[:_MAX_TEST_OUTPUT],
        datetime.fromisoformat(ended).timestamp(),
    )


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    """Return the engine's form of a health check.

    If Sluice probes the instance itself, the image's HEALTHCHECK is disabled, so only one of them decides.
    """
    if check.test is None:
        return {"Test": ["NONE"]}
    return {
        "Test": check.test,
        "Interval": round(check.interval * NANOSECONDS),
        "Timeout": round(check.timeout * NANOSECONDS),
        "StartPeriod": round(check.start_period * NANOSECONDS),
        "Retries": check.retries,
    }


def _mount(volume: VolumeMount, name: str) -> dict[str, Any]:
    """Return the engine's form of a mount.

    A volume that it creates is labelled, so the removal of this Sluice finds it.
    """
    source: dict[str, Any] = {} if volume.type == "tmpfs" else {"Source": volume.source}
    if volume.type == "volume":
        source["VolumeOptions"] = {"Labels": {NAME: name}}
    return {"Type": volume.type, "Target": volume.target, "ReadOnly": volume.read_only, **source}


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def state_signature(status: str) -> str:
    """Return the exit code or the health that a status text shows, in its parentheses.

    Examples: "Exited (0) 2 minutes ago", "Up 3 seconds (healthy)".
    """
    found = re.search(r"\(.*?\)", status)
    return found[0] if found else ""
