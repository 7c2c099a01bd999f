"""Host paths that a spec may name, checked without the rest of the validation."""

from __future__ import annotations

import pytest

from services.rollouts.requests.host_mounts import HOST_OWN, mount_errors
from services.spec import ServiceSpec

ROOTS = ("/srv", "/root/app", "/home")
PROTECTED = ("/srv/sluice", "/srv/run/docker.sock")


def errors(*volumes: str, roots: tuple[str, ...] = ROOTS) -> list[tuple[str, str]]:
    spec = ServiceSpec.model_validate({"image": "web:1", "volumes": list(volumes)})
    return [(each.field, each.message) for each in mount_errors(roots, PROTECTED, spec)]


@pytest.mark.parametrize(
    "path", ["/srv/app", "/srv/app/data.db", "/srv/sluice-data", "/root/app", "/root/app/.env", "/home/ann/app"]
)
def test_paths_below_the_operators_roots_are_allowed(path: str) -> None:
    assert errors(f"{path}:/data", f"{path}/:/more:ro", "named:/volume") == []


@pytest.mark.parametrize("path", ["/", "/opt", "/srvx", "/root", "//opt/x", "/./opt"])
def test_paths_outside_of_the_roots_are_refused(path: str) -> None:
    [(field, message)] = errors("/srv/app:/ok", f"{path}:/data")
    assert field == "volumes.1.source" and "SLUICE_HOST_ROOTS (/srv, /root/app, /home)" in message


@pytest.mark.parametrize(
    "path", ["/srv", "/srv/.", "//srv//sluice", "/srv/sluice/gateway/admin.sock", "/srv/run", "/srv/run/docker.sock"]
)
def test_sluice_data_and_engine_socket_are_refused_with_parents_and_children(path: str) -> None:
    [(field, message)] = errors(f"{path}:/data:ro")
    assert field == "volumes.0.source" and "which controls the host" in message


@pytest.mark.parametrize("path", ["/", "/var", "/var/lib", "/usr", *HOST_OWN, *(f"{path}/x" for path in HOST_OWN)])
def test_paths_that_control_the_host_are_refused_under_any_roots(path: str) -> None:
    for roots in (("/",), (path,)):
        [(_, message)] = errors(f"{path}:/data:ro", roots=roots)
        assert "which controls the host" in message


@pytest.mark.parametrize("path", ["/home", "/home/ann", "/home/ann/.ssh", "/home/ann/.ssh/id", "/root", "/root/.bashrc"])
def test_home_directories_and_hidden_files_are_refused_under_any_roots(path: str) -> None:
    [(_, message)] = errors(f"{path}:/data:ro", roots=("/",))
    assert "home directories" in message
