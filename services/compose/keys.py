"""All keys of the Compose specification, each with its support.

A key is taken, implied by how Sluice works, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Key:
    """Support of a key. `why`: the message if it is refused or implied; an empty one gives no warning."""

    support: Literal["taken", "implied", "refused"]
    why: str = ""


TAKEN = Key("taken")
SILENT = Key("implied")


def implied(why: str) -> Key:
    return Key("implied", why)


def refused(why: str) -> Key:
    return Key("refused", why)


_NO_FIELD = refused("not supported on Sluice's containers")
_NO_WEIGHT = refused("not supported: the limits are cpus, memory and pids")
_OWN_NETWORK = refused("not supported: Sluice assigns addresses and names")
_ONE_HOST = implied("has no meaning on one host")
_ONLY_CONTAINERS = implied("ignored: only containers have labels")
_OUT = refused("not supported: expand it with `docker compose config`")

TOP: Mapping[str, Key] = {
    "services": TAKEN, "volumes": TAKEN, "networks": TAKEN, "name": TAKEN,
    "version": SILENT, "configs": SILENT, "secrets": SILENT,
    "include": _OUT, "models": refused("is not supported"),
}  # fmt: skip
SERVICE: Mapping[str, Key] = {
    **dict.fromkeys(
        (
            "image", "command", "entrypoint", "environment", "env_file", "expose", "ports", "healthcheck", "depends_on",
            "deploy", "init", "labels", "links", "logging", "networks", "profiles", "restart", "scale", "stop_grace_period",
            "stop_signal", "tmpfs", "user", "volumes", "working_dir", "cpus", "mem_limit", "pids_limit", "build",
            "x-sluice",
        ),
        TAKEN,
    ),
    "container_name": implied("ignored: Sluice names containers by service, revision and number"),
    "hostname": implied("ignored: an instance's host name is its id"),
    "attach": SILENT, "develop": SILENT,
    "annotations": implied("is not set on containers"),
    "platform": implied("ignored: the engine's own platform is pulled"),
    "pull_policy": implied("ignored: each deployment pulls, and uses the local image if the pull fails"),
    "stdin_open": implied("ignored: no terminal is attached"),
    "tty": implied("ignored: no terminal is attached"),
    "mem_reservation": implied("ignored: nothing is reserved"),
    "network_mode": _OWN_NETWORK, "mac_address": _OWN_NETWORK, "extra_hosts": _OWN_NETWORK, "dns": _OWN_NETWORK,
    "dns_opt": _OWN_NETWORK, "dns_search": _OWN_NETWORK, "domainname": _OWN_NETWORK, "external_links": _OWN_NETWORK,
    "extends": _OUT, "label_file": _OUT,
    "configs": refused("is not supported: mount a file as a volume, or use environment"),
    "secrets": refused("is not supported: mount a file as a volume, or use environment"),
    "volumes_from": refused("is not supported: name the volumes"),
    "gpus": refused("not supported: Sluice assigns no devices"),
    "devices": refused("not supported: Sluice assigns no devices"),
    "privileged": refused("is not supported: instances are never privileged"),
    "models": refused("is not supported"), "provider": refused("is not supported"),
    "post_start": refused("not supported: use the image's entrypoint"),
    "pre_stop": refused("not supported: handle the stop_signal in the application"),
    **dict.fromkeys(
        (
            "cap_add", "cap_drop", "cgroup", "cgroup_parent", "credential_spec", "device_cgroup_rules", "driver_opts",
            "group_add", "ipc", "isolation", "oom_kill_disable", "oom_score_adj", "pid", "read_only", "runtime",
            "security_opt", "shm_size", "storage_opt", "sysctls", "ulimits", "use_api_socket", "userns_mode", "uts",
        ),
        _NO_FIELD,
    ),
    **dict.fromkeys(
        (
            "blkio_config", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime",
            "cpu_shares", "cpuset", "mem_swappiness", "memswap_limit",
        ),
        _NO_WEIGHT,
    ),
}  # fmt: skip
HEALTHCHECK: Mapping[str, Key] = {
    **dict.fromkeys(("test", "interval", "timeout", "retries", "start_period", "disable"), TAKEN),
    "start_interval": implied("ignored: interval applies from the start"),
}
DEPLOY: Mapping[str, Key] = {
    **dict.fromkeys(("replicas", "update_config", "resources", "mode", "restart_policy"), TAKEN),
    "rollback_config": implied("ignored: a rollback uses update_config"),
    "placement": _ONE_HOST, "endpoint_mode": _ONE_HOST,
    "labels": _ONLY_CONTAINERS,
}  # fmt: skip
UPDATE: Mapping[str, Key] = {
    **dict.fromkeys(("parallelism", "order", "failure_action", "monitor"), TAKEN),
    "delay": implied("ignored: the next instances start when these are ready"),
    "max_failure_ratio": implied("ignored: no instance of a new version may fail"),
}
RESTART: Mapping[str, Key] = {
    "condition": TAKEN,
    **dict.fromkeys(("delay", "max_attempts", "window"), implied("ignored: Sluice restarts with increasing delays")),
}
RESOURCES: Mapping[str, Key] = {"limits": TAKEN, "reservations": TAKEN}
LIMITS: Mapping[str, Key] = {"cpus": TAKEN, "memory": TAKEN, "pids": TAKEN}
RESERVATIONS: Mapping[str, Key] = {
    "cpus": implied("ignored: nothing is reserved"),
    "memory": implied("ignored: nothing is reserved"),
    "devices": refused("not supported: Sluice assigns no devices"),
    "generic_resources": refused("not supported: Sluice assigns no devices"),
}
DEPENDENCY: Mapping[str, Key] = {
    "condition": TAKEN,
    "required": TAKEN,
    "restart": implied("ignored: services are not restarted together"),
}
ENV_FILE: Mapping[str, Key] = {"path": TAKEN, "required": TAKEN, "format": TAKEN}
LOGGING: Mapping[str, Key] = {"driver": TAKEN, "options": TAKEN}
PORT: Mapping[str, Key] = {
    **dict.fromkeys(("target", "published", "protocol", "app_protocol"), TAKEN),
    **dict.fromkeys(("host_ip", "mode", "name"), SILENT),
}
VOLUME: Mapping[str, Key] = {
    **dict.fromkeys(("type", "source", "target", "read_only", "bind", "volume", "tmpfs", "x-sluice"), TAKEN),
    "consistency": SILENT,
}
BIND: Mapping[str, Key] = {
    "create_host_path": implied("ignored: a host path must exist"),
    "selinux": implied("ignored: SELinux labels are not changed"),
    "propagation": refused("is not supported"),
    "recursive": refused("is not supported"),
}
NAMED_VOLUME: Mapping[str, Key] = {
    "nocopy": refused("is not supported"), "subpath": refused("is not supported"),
    "labels": _ONLY_CONTAINERS,
}  # fmt: skip
TMPFS: Mapping[str, Key] = {"size": refused("is not supported"), "mode": refused("is not supported")}
JOINED: Mapping[str, Key] = {
    **dict.fromkeys(
        ("aliases", "ipv4_address", "ipv6_address", "link_local_ips", "mac_address", "driver_opts", "interface_name"),
        _OWN_NETWORK,
    ),
    "priority": implied("ignored: Sluice's network is the first one"),
    "gw_priority": implied("ignored: Sluice's network is the first one"),
}  # fmt: skip
TOP_VOLUME: Mapping[str, Key] = {
    **dict.fromkeys(("name", "external", "driver", "driver_opts"), TAKEN),
    "labels": _ONLY_CONTAINERS,
}
TOP_NETWORK: Mapping[str, Key] = {
    "name": TAKEN, "external": TAKEN, "driver": SILENT,
    **dict.fromkeys(
        ("driver_opts", "attachable", "enable_ipv4", "enable_ipv6", "ipam", "labels"),
        implied("ignored: Sluice's instances are in Sluice's network"),
    ),
    "internal": implied("isolates nothing: all instances are in Sluice's network"),
}  # fmt: skip
