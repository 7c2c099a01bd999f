"""`sluice init` writes valid YAML that Sluice accepts, and overwrites no file a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_fixture import CliFixture

NO_CHECK = ("--set", "healthcheck.disable=true")
"""Options for the fake engine, whose containers answer no health check."""


def test_init_writes_a_file_that_deploys(stub: Stub, sluice: Sluice) -> None:
    Path("Dockerfile").write_text("FROM scratch\nEXPOSE 3000/tcp\n")
    assert sluice("init", "web", "--image", "web:1.5").exit_code == 0
    assert sluice("deploy").exit_code == 0
    assert stub.asked("POST", "/deployments")[0].body == {
        "service": "web", "image": "web:1.5", "port": 3000, "replicas": 2, "mode": "replace",
        "routes": [{"path_prefix": "/web", "strip_prefix": True}],
    }  # fmt: skip


def test_init_beside_a_dockerfile_builds_it_and_sluice_deploy_works(cli_fixture: CliFixture) -> None:
    Path("Dockerfile").write_text("FROM scratch\n  expose 3000/tcp\n")
    result = cli_fixture.sluice("init", "--no-ci")
    assert result.exit_code == 0
    assert result.stderr.endswith("Review the file, then run: sluice deploy\n")
    spec = yaml.safe_load(Path("sluice.yaml").read_text())
    assert (spec["service"], spec["build"], spec["port"], "image" in spec) == ("work", ".", 3000, False)
    deployed = cli_fixture.sluice("deploy", *NO_CHECK)
    assert deployed.exit_code == 0, deployed.output
    assert deployed.stdout.startswith("work deployed: revision 1 (work:2")


def test_init_beside_a_compose_file_writes_nothing_and_its_command_works(cli_fixture: CliFixture) -> None:
    Path("compose.yaml").write_text("services: {web: {image: 'web:1', ports: ['8000'], healthcheck: {disable: true}}}\n")
    result = cli_fixture.sluice("init")
    assert (result.exit_code, result.stdout) == (0, "")
    command = result.stderr.strip().rpartition("run: ")[2]
    assert command == "sluice deploy -f compose.yaml"
    assert [path.name for path in Path().iterdir()] == ["compose.yaml"]
    deployed = cli_fixture.sluice(*command.split()[1:])
    assert deployed.exit_code == 0, deployed.output
    assert json.loads(cli_fixture.sluice("init", "--json").stdout) == {"service": None, "files": []}


def test_init_names_the_override_that_compose_would_merge(cli_fixture: CliFixture) -> None:
    Path("docker-compose.yml").write_text("services: {web: {image: 'web:1', healthcheck: {disable: true}}}\n")
    Path("docker-compose.override.yml").write_text("services: {web: {environment: {A: 1}}}\n")
    stderr = cli_fixture.sluice("init").stderr
    assert "run: sluice deploy -f docker-compose.yml -f docker-compose.override.yml\n" in stderr


def test_init_beside_both_files_or_with_a_name_writes_a_sluice_yaml(sluice: Sluice) -> None:
    Path("compose.yaml").write_text("services: {}\n")
    assert sluice("init", "web", "--no-ci").exit_code == 0
    assert yaml.safe_load(Path("sluice.yaml").read_text())["image"] == "web:latest"
    Path("sluice.yaml").unlink()
    Path("Dockerfile").write_text("FROM scratch\n")
    assert sluice("init", "--no-ci").exit_code == 0
    assert yaml.safe_load(Path("sluice.yaml").read_text())["build"] == "."


def test_init_in_an_empty_directory_asks_for_an_image_before_the_deployment(cli_fixture: CliFixture) -> None:
    result = cli_fixture.sluice("init", "--no-ci")
    assert result.exit_code == 0
    assert "There is no Dockerfile: set `image` in sluice.yaml" in result.stderr
    path = Path("sluice.yaml")
    path.write_text(path.read_text().replace("work:latest", "web:1"))
    deployed = cli_fixture.sluice("deploy", *NO_CHECK)
    assert deployed.exit_code == 0, deployed.output


def test_init_in_another_directory_names_the_file_to_deploy(sluice: Sluice) -> None:
    Path("shop").mkdir()
    Path("shop/Dockerfile").write_text("FROM scratch\n")
    result = sluice("init", "--directory", "shop", "--no-ci")
    assert result.stderr.endswith("run: sluice deploy -f shop/sluice.yaml\n")


def test_init_writes_commented_fields_that_deploy_too(stub: Stub, sluice: Sluice) -> None:
    sluice("init", "web", "--no-ci")
    path = Path("sluice.yaml")
    lines = path.read_text().splitlines()
    head = lines.index("service: web")
    path.write_text(
        "\n".join(line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in lines[head:])
    )
    result = sluice("deploy", "--profile", "prod")
    assert result.exit_code == 0, result.stderr
    body = stub.asked("POST", "/deployments")[0].body
    assert set(body) >= {"healthcheck", "links", "resources", "volumes", "profiles", "failure_action", "environment"}


@pytest.mark.parametrize(
    ("option", "path", "step"),
    [("--github", ".github/workflows/deploy.yml", "jobs"), ("--gitlab", ".gitlab/sluice.yml", "deploy")],
)
def test_init_writes_a_ci_job_that_waits_for_the_result(sluice: Sluice, option: str, path: str, step: str) -> None:
    result = sluice("init", "web", option, "--json")
    assert json.loads(result.stdout)["files"] == ["sluice.yaml", path]
    text = Path(path).read_text()
    job = yaml.safe_load(text)[step]
    script = job["deploy"]["steps"][-1]["run"] if step == "jobs" else job["script"][-1]
    assert script.startswith("curl --silent --show-error --fail-with-body --retry 20 --retry-connrefused")
    assert '{\\"service\\": \\"web\\", \\"image\\": \\"$IMAGE\\"' in script
    assert "@" not in script


def test_init_derives_the_name_and_the_ci_from_the_directory(sluice: Sluice) -> None:
    directory = Path("3. My_Shop!")
    directory.mkdir()
    (directory / ".gitlab-ci.yml").write_text("")
    result = sluice("init", "--directory", str(directory))
    assert result.exit_code == 0
    assert yaml.safe_load((directory / "sluice.yaml").read_text())["service"] == "my-shop"
    assert (directory / ".gitlab" / "sluice.yml").exists()
    assert "include" in result.stderr


@pytest.mark.parametrize("existing", ["sluice.yaml", ".github/workflows/deploy.yml"])
def test_init_overwrites_nothing_and_writes_no_other_file_then(sluice: Sluice, existing: str) -> None:
    Path(existing).parent.mkdir(parents=True, exist_ok=True)
    Path(existing).write_text("mine")
    result = sluice("init", "web")
    assert result.exit_code == 2
    assert existing in result.stderr
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == [existing]
    assert Path(existing).read_text() == "mine"


@pytest.mark.parametrize(
    "arguments", [("init", "Web"), ("init", "web", "--github", "--no-ci"), ("init", "web", "--image", 'a"b')]
)
def test_init_refuses_invalid_arguments(sluice: Sluice, arguments: tuple[str, ...]) -> None:
    assert sluice(*arguments).exit_code == 2
    assert list(Path().iterdir()) == []


POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <parent><artifactId>spring-boot-starter-parent</artifactId></parent>
  <artifactId>sample-service</artifactId>
  <dependencies><dependency><artifactId>spring-boot-starter-actuator</artifactId></dependency></dependencies>
</project>
"""


def test_init_spring_writes_the_settings_of_the_former_scripts(stub: Stub, sluice: Sluice) -> None:
    Path("pom.xml").write_text(POM)
    Path("local.env").write_text("APP_NAME=sample-service\nEXCLUDED_PORTS=8080,3000\nINSTANCE_NUM=1\n")
    Path("prod.env").write_text("APP_NAME=sample-service\nEXCLUDED_PORTS=8080\nINSTANCE_NUM=3\nDB_PASSWORD=hunter2\n")
    Path("other.env").write_text("LOG_LEVEL=info\n")
    result = sluice("init", "--spring", "--no-ci")
    assert (result.exit_code, "actuator" in result.stderr) == (0, False)
    assert "hunter2" not in Path("sluice.yaml").read_text()
    assert sluice("deploy", "--profile", "prod").exit_code == 0
    assert stub.asked("POST", "/deployments")[0].body == {
        "service": "sample-service", "image": "sample-service:latest", "port": 8080, "mode": "replace", "profile": "prod",
        "routes": [{"path_prefix": "/sample-service", "strip_prefix": True}],
        "healthcheck": {"path": "/actuator/health", "expect_json": {"status": "UP"}, "timeout": 5, "start_period": 180},
        "stop_grace_period": 40, "host_port": {"auto": True, "exclude": [3000, 8080]},
        "profiles": {
            "local": {"replicas": 1, "environment": {"SPRING_PROFILE": "local"}},
            "prod": {"replicas": 3, "environment": {"SPRING_PROFILE": "prod"}},
        },
    }  # fmt: skip
    assert sluice("deploy", "--profile-file", "prod.env").exit_code == 0
    body = stub.asked("POST", "/deployments")[1].body
    assert body["profiles"]["prod"]["environment"] == {"SPRING_PROFILE": "prod", "DB_PASSWORD": "hunter2"}


@pytest.mark.parametrize(
    ("files", "name", "lacking"),
    [
        ({"pom.xml": POM}, "sample-service", None),
        (
            {"settings.gradle": "rootProject.name = 'Shop_API'", "build.gradle": "implementation 'web'"},
            "shop-api",
            "build.gradle",
        ),
        (
            {"settings.gradle.kts": 'rootProject.name = "shop"', "build.gradle.kts": "spring-boot-starter-actuator"},
            "shop",
            None,
        ),
        ({"pom.xml": POM, "prod.env": "APP_NAME=mine\n"}, "mine", None),
        ({"pom.xml": "<project><artifactId>"}, "work", "pom.xml"),
        ({"pom.xml": '<!DOCTYPE x [<!ENTITY a "b">]><project/>'}, "work", "pom.xml"),
        ({}, "work", None),
    ],
)
def test_init_spring_takes_the_name_from_the_build_or_env_file(
    stub: Stub, sluice: Sluice, files: dict[str, str], name: str, lacking: str | None
) -> None:
    for path, text in files.items():
        Path(path).write_text(text)
    result = sluice("init", "--spring", "--no-ci")
    assert result.exit_code == 0
    assert (
        f"{lacking} does not contain spring-boot-starter-actuator" in result.stderr
        if lacking
        else "actuator" not in result.stderr
    )
    assert sluice("deploy").exit_code == 0
    body = stub.asked("POST", "/deployments")[0].body
    assert (body["service"], "host_port" in body) == (name, False)


def test_init_spring_names_an_invalid_profile_file(sluice: Sluice) -> None:
    Path("prod.env").write_text("INSTANCE_NUM=3\nwhat is this\n")
    result = sluice("init", "--spring")
    assert result.exit_code == 2
    assert "prod.env, line 2: not NAME=value" in result.stderr
    assert not Path("sluice.yaml").exists()
