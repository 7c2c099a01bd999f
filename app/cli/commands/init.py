"""sluice init: write a commented sluice.yaml and a CI job as a starting point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from app.cli.command import local_command
from app.cli.errors import usage
from app.cli.input.specfile import DEFAULT_FILE
from app.cli.output.console import Output

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_EXPOSE = re.compile(r"^\s*EXPOSE\s+(\d+)(?:/tcp)?\s*$", re.IGNORECASE | re.MULTILINE)
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]*")


@local_command
def init(
    out: Output,
    service: Annotated[str | None, typer.Argument(help="Its name. Default: the directory's.", show_default=False)] = None,
    image: Annotated[str | None, typer.Option(help="Its image. Default: NAME:latest.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(help="Default: the Dockerfile's EXPOSE, else 8000 (Spring: 8080).", show_default=False)
    ] = None,
    spring: Annotated[
        bool, typer.Option("--spring", help="For a Spring Boot service, from its build file and *.env.")
    ] = False,
    github: Annotated[bool, typer.Option("--github", help="A GitHub Actions job (the default).")] = False,
    gitlab: Annotated[bool, typer.Option("--gitlab", help="A GitLab CI job.")] = False,
    no_ci: Annotated[bool, typer.Option("--no-ci", help="Only the sluice.yaml.")] = False,
    directory: Annotated[Path, typer.Option(help="Where to write.")] = Path("."),
) -> None:
    """Write a commented sluice.yaml and a CI job."""
    if github + gitlab + no_ci > 1:
        raise usage("one of --github, --gitlab and --no-ci, please")
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
            f"{name!r} cannot name a service", "At most 40 lower-case letters, digits and -, beginning with a letter."
        )
    if image is not None and not _IMAGE.fullmatch(image):
        raise usage(f"{image!r} is not an image's reference")
    gitlab = gitlab or (not github and (directory / ".gitlab-ci.yml").exists())
    number, image = port or _exposed(directory), image or f"{name}:latest"
    spec = spring_spec(name, image, number or PORT, found.profiles) if found else _spec(name, image, number or 8000)
    files = {directory / DEFAULT_FILE: spec}
    if not no_ci:
        server, job = (".gitlab/sluice.yml", _GITLAB) if gitlab else (".github/workflows/deploy.yml", _GITHUB)
        files[directory / server] = job.replace("@NAME@", name)
    for path in files:
        if path.exists():
            raise usage(
                f"{path} exists already", "Nothing was written. Move it away, or use another --directory or --no-ci."
            )
    for path, text in files.items():
        _write(path, text)
        out.say(f"wrote {path}")
    if found and found.lacks_actuator:
        out.say(f"{found.lacks_actuator} does not name spring-boot-starter-actuator: without it /actuator/health is 404.")
    if gitlab and not no_ci:
        out.say("In .gitlab-ci.yml: include: [{ local: .gitlab/sluice.yml }]")
    out.say("Read it, then: sluice deploy")
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


def _exposed(directory: Path) -> int | None:
    try:
        found = _EXPOSE.search((directory / "Dockerfile").read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found and 0 < int(found[1]) < 65536 else None


def _spec(name: str, image: str, port: int) -> str:
    return _SPEC.replace("@NAME@", name).replace("@IMAGE@", image).replace("@PORT@", str(port))


_SPEC = """\
# What Sluice runs. Deploy it with:  sluice deploy -f sluice.yaml
# The file is the whole truth: a field that is taken out of it goes back to its default.
# Arguments win over it:  sluice deploy -f sluice.yaml --image @NAME@:1.5 --note "$(git rev-parse --short HEAD)"

service: @NAME@
image: "@IMAGE@"        # any reference that the engine can pull or has
port: @PORT@             # what the application listens on; null for a worker that listens on nothing

replicas: 2            # with two or more, the death of one loses no GET. Left out: stays as it was scaled

routes:                # who may come in through the gateway; without any, only other services can
  - path_prefix: /@NAME@
    strip_prefix: true # the application sees / instead of /@NAME@
  # - host: @NAME@.example.org

# healthcheck:         # when an instance is ready. Without one: any answer below 500 on /
#   path: /healthz
#   start_period: 60   # how long a slow start may take

# environment:
#   LOG_LEVEL: info

# links: [api]         # other services, reached as http://api:PORT

# resources: {cpus: 1, memory: 256m}

# volumes:             # a writable volume means: never two at once (strategy recreate), unless it is `shared: true`
#   - data:/var/lib/@NAME@

# drain_timeout: 30    # how long a leaving instance may finish what it has
# stop_grace_period: 30
# failure_action: rollback      # or pause

# profiles:            # layers over the above:  sluice deploy -f sluice.yaml --profile prod
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
# Builds the image, pushes it, and has Sluice deploy it. The last step waits for the outcome: it fails when the new version
# does, and then the old one still serves. It deploys a new image only; the rest of sluice.yaml comes by
# `sluice deploy -f sluice.yaml`.
#
# Secrets to set: SLUICE_URL, SLUICE_TOKEN (sluice token create ci --scope deploy). Sluice listens on loopback unless told
# otherwise: use a runner on its machine, or put the API behind TLS.
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
# Builds the image, pushes it, and has Sluice deploy it. The last command waits for the outcome: it fails when the new
# version does, and then the old one still serves. It deploys a new image only; the rest of sluice.yaml comes by
# `sluice deploy -f sluice.yaml`.
#
# Variables to set: SLUICE_URL, SLUICE_TOKEN (sluice token create ci --scope deploy). Sluice listens on loopback unless told
# otherwise: use a runner on its machine (shell executor), or put the API behind TLS.
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
