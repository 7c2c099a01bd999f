"""sluice init: write a commented sluice.yaml and a CI job as a starting point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from app.cli.command import local_command
from app.cli.errors import usage
from app.cli.input.files import DEFAULT_FILE
from app.cli.output.console import Output

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_EXPOSE = re.compile(r"^\s*EXPOSE\s+(\d+)(?:/tcp)?\s*$", re.IGNORECASE | re.MULTILINE)
_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]*")


@local_command
def init(
    out: Output,
    service: Annotated[
        str | None, typer.Argument(help="Name of the service. Default: the directory's name.", show_default=False)
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Image of the service. Default: built from the Dockerfile, else NAME:latest.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port that the application listens on. Default: the Dockerfile's EXPOSE, else 8000 (Spring: 8080).",
            show_default=False,
        ),
    ] = None,
    spring: Annotated[
        bool, typer.Option("--spring", help="Write the file for a Spring Boot service, from its build file and *.env.")
    ] = False,
    github: Annotated[bool, typer.Option("--github", help="Write a GitHub Actions job (default).")] = False,
    gitlab: Annotated[bool, typer.Option("--gitlab", help="Write a GitLab CI job.")] = False,
    no_ci: Annotated[bool, typer.Option("--no-ci", help="Write only sluice.yaml.")] = False,
    directory: Annotated[Path, typer.Option(help="Directory to write to.")] = Path("."),
) -> None:
    """Write a commented sluice.yaml and a CI job."""
    if github + gitlab + no_ci > 1:
        raise usage("--github, --gitlab and --no-ci exclude each other")
    found = None
    if spring:
        from app.cli.input.spring_project import (  # reads XML and YAML, which takes a while to load
            PORT,
            look_at,
            spring_spec,
        )

        found = look_at(directory)
    name = service or _fit((found and found.name) or directory.resolve().name)
    if not _NAME.fullmatch(name):
        raise usage(
            f"invalid service name: {name!r}", "Use at most 40 lower-case letters, digits and -, starting with a letter."
        )
    if image is not None and not _IMAGE.fullmatch(image):
        raise usage(f"invalid image reference: {image!r}")
    compose = None if found or service or image or _has_dockerfile(directory) else _compose_file(directory)
    if compose is not None:
        options = " ".join(f"-f {file}" for file in [compose, *_overrides(compose)])
        out.say(f"{compose} needs no {DEFAULT_FILE}. To deploy its services, run: sluice deploy {options}")
        out.result({"service": None, "files": []}, "", "")
        return
    gitlab = gitlab or (not github and (directory / ".gitlab-ci.yml").exists())
    builds = image is None and _has_dockerfile(directory)
    source = "build: ." if builds else f'image: "{image or name + ":latest"}"'
    number = port or _exposed(directory)
    spec = spring_spec(name, source, number or PORT, found.profiles) if found else _spec(name, source, number or 8000)
    files = {directory / DEFAULT_FILE: spec}
    if not no_ci:
        server, job = (".gitlab/sluice.yml", _GITLAB) if gitlab else (".github/workflows/deploy.yml", _GITHUB)
        files[directory / server] = job.replace("@NAME@", name)
    for path in files:
        if path.exists():
            raise usage(
                f"{path} already exists", "Nothing was written. Move the file, or use another --directory or --no-ci."
            )
    for path, text in files.items():
        _write(path, text)
        out.say(f"wrote {path}")
    if found and found.lacks_actuator:
        out.say(
            f"{found.lacks_actuator} does not contain spring-boot-starter-actuator: /actuator/health answers 404 without it."
        )
    if gitlab and not no_ci:
        out.say("In .gitlab-ci.yml: include: [{ local: .gitlab/sluice.yml }]")
    if not builds and image is None:
        out.say(f"There is no Dockerfile: set `image` in {DEFAULT_FILE} to a local or pullable image.")
    option = "" if directory.resolve() == Path.cwd() else f" -f {directory / DEFAULT_FILE}"
    out.say(f"Review the file, then run: sluice deploy{option}")
    written = [str(path) for path in files]
    out.result({"service": name, "files": written}, "", "\n".join(written))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise usage(f"{path} cannot be written: {error}") from error


def _fit(name: str) -> str:
    """Convert a foreign name into a valid service name; `app` if none of its characters is usable."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("0123456789-")
    return words[:40].rstrip("-") or "app"


def _has_dockerfile(directory: Path) -> bool:
    return (directory / "Dockerfile").is_file()


def _compose_file(directory: Path) -> Path | None:
    """Return the directory's Compose file, if there is one.

    The names are tried in the order in which Compose looks for them.
    """
    return next((directory / name for name in _COMPOSE_FILES if (directory / name).is_file()), None)


def _overrides(compose: Path) -> list[Path]:
    """Return the file that Compose merges over `compose` without being asked, if there is one."""
    names = (f"{compose.stem}.override.yaml", f"{compose.stem}.override.yml")
    return [path for name in names if (path := compose.with_name(name)).is_file()][:1]


def _exposed(directory: Path) -> int | None:
    try:
        found = _EXPOSE.search((directory / "Dockerfile").read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found and 0 < int(found[1]) < 65536 else None


def _spec(name: str, source: str, port: int) -> str:
    return _SPEC.replace("@NAME@", name).replace("@SOURCE@", source).replace("@PORT@", str(port))


_SPEC = """\
# A service for Sluice. Deploy it with:  sluice deploy
# It has either `build`, a directory whose Dockerfile each deploy builds, or `image`, a local or pullable image.
# The file is the complete spec: a field that is removed from it returns to its default.
# Arguments override it:  sluice deploy -f sluice.yaml --image @NAME@:1.5 --note "$(git rev-parse --short HEAD)"

service: @NAME@
@SOURCE@
port: @PORT@             # port that the application listens on; null for a worker that listens on none

replicas: 2            # with two or more, the loss of one loses no GET. If omitted, scaling is kept

routes:                # public routes through the gateway; without any, only other services can call it
  - path_prefix: /@NAME@
    strip_prefix: true # the application sees / instead of /@NAME@
  # - host: @NAME@.example.org

# healthcheck:         # when an instance is ready. Default: any answer below 500 on /
#   path: /healthz
#   start_period: 60   # seconds that a slow start may take

# environment:
#   LOG_LEVEL: info

# links: [api]         # other services, reached as http://api:PORT

# resources: {cpus: 1, memory: 256m}

# volumes:             # a writable volume means one instance at a time (strategy recreate), unless it is `shared: true`
#   - data:/var/lib/@NAME@

# drain_timeout: 30    # seconds that a draining instance may take to finish its requests
# stop_grace_period: 30
# init: true           # for an application that does not handle SIGTERM: each stop would take stop_grace_period
# failure_action: rollback      # or pause

# profiles:            # overrides of the fields above:  sluice deploy -f sluice.yaml --profile prod
#   prod:
#     replicas: 4
"""

_CURL = """\
curl --silent --show-error --fail-with-body --retry 20 --retry-connrefused \\
  -H "Authorization: Bearer $SLUICE_TOKEN" -H "Content-Type: application/json" \\
  -H "Idempotency-Key: @RUN@" \\
  -d "{\\"service\\": \\"@NAME@\\", \\"image\\": \\"$IMAGE\\", \\"note\\": \\"$REVISION\\"}" \\
  "$SLUICE_URL/deployments?wait=50"
"""


def _indented(text: str, run: str, by: int) -> str:
    lines = text.replace("@RUN@", run).splitlines()
    return "\n".join(" " * by + line for line in lines) + "\n"


_GITHUB = """\
# Builds the image, pushes it, and deploys it with Sluice. The last step waits for the result: it fails if the new version
# fails, and the old version then keeps serving. It deploys a new image only; deploy other changes of sluice.yaml with
# `sluice deploy -f sluice.yaml`.
#
# Secrets to set: SLUICE_URL, SLUICE_TOKEN (sluice token create ci --scope deploy). Sluice listens on loopback by
# default: use a runner on its host, or put the API behind TLS.
name: deploy

on:
  push:
    branches: [main]

concurrency: deploy-@NAME@

jobs:
  deploy:
    runs-on: self-hosted
    permissions:
      contents: read
      packages: write
    env:
      IMAGE: ghcr.io/${{ github.repository }}:${{ github.sha }}
      REVISION: ${{ github.sha }}
      SLUICE_URL: ${{ secrets.SLUICE_URL }}
      SLUICE_TOKEN: ${{ secrets.SLUICE_TOKEN }}
    steps:
      - uses: actions/checkout@v4
      - name: Build and push
        run: |
          echo "${{ secrets.GITHUB_TOKEN }}" | docker login ghcr.io -u "${{ github.actor }}" --password-stdin
          docker build -t "$IMAGE" .
          docker push "$IMAGE"
      - name: Deploy
        run: |
""" + _indented(_CURL, "$GITHUB_RUN_ID-$GITHUB_RUN_ATTEMPT", 10)

_GITLAB = """\
# Builds the image, pushes it, and deploys it with Sluice. The last command waits for the result: it fails if the new
# version fails, and the old version then keeps serving. It deploys a new image only; deploy other changes of sluice.yaml
# with `sluice deploy -f sluice.yaml`.
#
# Variables to set: SLUICE_URL, SLUICE_TOKEN (sluice token create ci --scope deploy). Sluice listens on loopback by
# default: use a runner on its host (shell executor), or put the API behind TLS.
deploy:
  stage: deploy
  resource_group: deploy-@NAME@
  rules:
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
  variables:
    IMAGE: $CI_REGISTRY_IMAGE:$CI_COMMIT_SHA
    REVISION: $CI_COMMIT_SHA
  script:
    - echo "$CI_REGISTRY_PASSWORD" | docker login -u "$CI_REGISTRY_USER" --password-stdin "$CI_REGISTRY"
    - docker build -t "$IMAGE" .
    - docker push "$IMAGE"
    - |
""" + _indented(_CURL, "$CI_JOB_ID", 6)
