"""Host paths that services may mount.

They lie below the operator's roots and apart from the paths that control the host, and no service can change where they
lead. A service that can write a directory can replace any path in it by a symbolic link. So no service mounts a path below a
directory that a service mounts writable. Then only the operator can change the path to a mounted directory, and a check that
was made before an instance starts still holds when the engine mounts the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from sqlmodel import Session, col, func, select, tuple_, union
from sqlmodel.sql.expression import Select

from services.errors import FieldError
from services.rollouts.state.service_snapshot import ACTIVE
from services.spec import ServiceSpec, VolumeMount
from services.store.tables import Deployment, Instance, Revision, Service

HOST_OWN = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/usr/bin",
    "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/libx32", "/usr/local/bin", "/usr/local/lib",
    "/usr/local/sbin", "/usr/sbin", "/var/lib/containerd", "/var/lib/docker", "/var/run", "/var/spool/cron",
)  # fmt: skip
"""Directories that control the host and its engine. They are refused even below the operator's roots."""
_HOMES = re.compile(r"/home|(?:/root|/home/[^/]+)(?:/\.[^/].*)?")
"""Home directories, and their entries that begin with a dot.

The entries are keys, credentials and files that a shell reads.
"""


def mount_errors(roots: Sequence[str], protected: Sequence[str], spec: ServiceSpec) -> list[FieldError]:
    """Check each of a spec's host paths. `protected` are Sluice's data and the engine's socket."""
    return [
        FieldError(f"volumes.{number}.source", why)
        for number, volume in enumerate(spec.volumes)
        if volume.type == "bind" and (why := _disallowed(volume.host_path, roots, (*HOST_OWN, *protected)))
    ]


def overlap_errors(session: Session, service: str, spec: ServiceSpec) -> list[FieldError]:
    """Check a spec's host paths against those of all specs in force and of the spec itself."""
    bind_mounts = [(number, volume) for number, volume in enumerate(spec.volumes) if volume.type == "bind"]
    if not bind_mounts:
        return []
    others = [(service, volume) for _, volume in bind_mounts] + _mounts_in_force(session)
    return [
        FieldError(f"volumes.{number}.source", why)
        for number, volume in bind_mounts
        if (why := next(_overlaps(volume, service, others), None))
    ]


def lies_in(path: str, directory: str) -> bool:
    """Return whether a path is the directory or lies in the directory."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _disallowed(path: str, roots: Sequence[str], protected: Sequence[str]) -> str | None:
    if not any(lies_in(path, root) for root in roots):
        return f"host paths are allowed only under SLUICE_HOST_ROOTS ({', '.join(roots) or 'none'})"
    protected_path = next((each for each in protected if lies_in(path, each) or lies_in(each, path)), None)
    if protected_path is not None:
        return f"{path} is not allowed: it overlaps {protected_path}, which controls the host; mount another directory"
    if _HOMES.fullmatch(path):
        return f"{path} is not allowed: home directories contain keys and shell files; mount a directory inside one"
    return None


def _overlaps(volume: VolumeMount, service: str, others: Sequence[tuple[str, VolumeMount]]) -> Iterator[str]:
    path = volume.host_path
    for other_service, other in others:
        other_path = other.host_path
        owner = "this service" if other_service == service else f'service "{other_service}"'
        if path == other_path:
            continue
        if not other.read_only and lies_in(path, other_path):
            yield (
                f"{path} is in {other_path}, which {owner} mounts writable and could replace by a symbolic link; "
                f"mount {other_path} itself, or mount it read-only there"
            )
        if not volume.read_only and lies_in(other_path, path):
            yield (
                f"{path} contains {other_path}, which {owner} mounts and this service could replace by a symbolic link; "
                "mount it read-only, or mount another directory"
            )


def _mounts_in_force(session: Session) -> list[tuple[str, VolumeMount]]:
    """Return (service, bind mount) for each revision in force.

    A revision is in force if it is current, if a running deployment leads to it, or if an instance of it still exists.
    """
    rows: list[tuple[str, list[Any]]] = list(session.exec(_volumes_in_force()))
    return [
        (service, volume)
        for service, volumes in rows
        for volume in map(VolumeMount.model_validate, volumes)
        if volume.type == "bind"
    ]


@cache
def _volumes_in_force() -> Select[str, Any]:
    current = select(Service.name, Service.revision)
    starting = select(Deployment.service, Deployment.revision).where(col(Deployment.status).in_(ACTIVE))
    running = select(Instance.service, Instance.revision).where(col(Instance.stopped_at).is_(None))
    effective = col(Revision.effective)
    return (
        select(Revision.service, effective["volumes"])
        .where(tuple_(Revision.service, Revision.number).in_(union(current, starting, running)))
        .where(func.json_array_length(effective, "$.volumes") > 0)
    )
