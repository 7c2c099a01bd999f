"""A Compose project is imported: its store stays with Compose, all services resolve by name."""

from __future__ import annotations

import pytest

from services.compose.document import parse_layer
from services.compose.merge import merge
from services.compose.serialization import serialize
from tests.support.service_fixture import ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

FILE = """\
services:
  {web}:
    image: {image}
    ports: ["8080:8000"]
    depends_on: {{{api}: {{condition: service_healthy}}, store: {{condition: service_started}}}}
    healthcheck: {{test: [CMD, python, -c, "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz')"]}}
    deploy: {{replicas: 2, resources: {{limits: {{memory: 128M}}}}}}
    x-sluice: {{routes: [{{path_prefix: /{web}, strip_prefix: true}}]}}
  {api}:
    image: {image}
    expose: [8000]
    x-sluice: {{healthcheck: {{path: /healthz}}}}
  store:
    image: {image}
    x-sluice: {{manage: false}}
"""


async def test_compose_project_is_deployed_and_its_store_stays_with_compose(service_fixture: ServiceFixture) -> None:
    project = web = service_fixture.service
    api, network = f"{web}-api", f"{project}_default"
    labels = [f"--label=com.docker.compose.{key}={value}" for key, value in (("project", project), ("service", "store"))]
    await service_fixture.docker("network", "create", network)
    store = await service_fixture.docker(
        "run", "--detach", "--rm", f"--network={network}", "--network-alias=store", *labels, service_fixture.images.one
    )
    try:
        text = FILE.format(web=web, api=api, image=service_fixture.images.one)
        answer = await service_fixture.http.post("/apply", params={"project": project, "wait": 60}, content=text)
        assert answer.status_code == 200, f"{answer.text}\n{service_fixture.sluice.last_words(15)}"
        first, second = answer.json()["deployments"]
        begun = {id: await service_fixture.get(f"/deployments/{id}") for id in (first, second)}
        assert (begun[first]["service"], begun[second]["service"]) == (api, web)
        assert begun[first]["finished_at"] <= begun[second]["started_at"]
        caller, _ = await service_fixture.containers()
        for url in (f"http://{api}:8000/", "http://store:8000/"):
            code = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=10).status)"
            assert await service_fixture.docker("exec", caller["Id"], "python", "-c", code) == "200"
        taken = text.replace("    x-sluice: {manage: false}\n", "")
        refused = await service_fixture.http.post("/apply", params={"project": project}, content=taken)
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["services.store"]
        for service in (web, api):
            await service_fixture.http.delete(f"/services/{service}", params={"wait": 30})
    finally:
        await service_fixture.docker("rm", "--force", "--volumes", store)
        await service_fixture.docker("network", "rm", network)


async def test_merged_compose_files_start_the_container_that_both_describe(service_fixture: ServiceFixture) -> None:
    base = f"""\
services:
  {service_fixture.service}:
    image: {service_fixture.images.one}
    ports: ["8080:8000"]
    environment: {{DATABASE_URL: "postgres://db/shop", LOG_LEVEL: info, PRICE: "5 $$"}}
    x-sluice: {{healthcheck: {{path: /healthz}}}}
"""
    prod = f"services:\n  {service_fixture.service}:\n    environment: [LOG_LEVEL=warning]\n"
    text = serialize(merge([parse_layer(base, {}, "compose.yaml"), parse_layer(prod, {}, "compose.prod.yaml")]))
    answer = await service_fixture.http.post("/apply", params={"project": service_fixture.service, "wait": 60}, content=text)
    assert answer.status_code == 200, f"{answer.text}\n{service_fixture.sluice.last_words(15)}"
    [container] = await service_fixture.containers()
    environment = set(container["Config"]["Env"])
    assert {"DATABASE_URL=postgres://db/shop", "LOG_LEVEL=warning", "PRICE=5 $"} <= environment
    service = await service_fixture.get(f"/services/{service_fixture.service}")
    assert (service["spec"]["port"], service["spec"]["healthcheck"]["path"]) == (8000, "/healthz")
    await service_fixture.http.delete(f"/services/{service_fixture.service}", params={"wait": 30})
