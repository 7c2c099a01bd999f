"""The dashboard on real parts: a user deploys in the browser and watches, under load."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import async_playwright, expect

from tests.browser.network import isolated
from tests.support.service_fixture import ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.anyio]


@pytest.fixture
def chromium() -> Iterator[dict[str, Any]]:
    with isolated() as arguments:
        yield arguments


async def test_dashboard_follows_a_deployment_and_shows_the_log_of_a_failed_one(
    service_fixture: ServiceFixture, chromium: dict[str, Any]
) -> None:
    await service_fixture.deploy(service_fixture.spec())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**chromium)
        page = await browser.new_page()
        page.set_default_timeout(30_000)
        await page.goto((await service_fixture.http.post("/sign-in-links")).json()["url"])
        await page.locator(f"#part-service-{service_fixture.service} a.name").click()
        async with service_fixture.load(rate=40):
            await page.get_by_role("link", name="Deploy", exact=True).click()
            await page.get_by_label("Image").fill(service_fixture.images.two)
            await page.get_by_role("button", name="Show the plan").click()
            await expect(page.get_by_text(f"start {service_fixture.service}-r2-1 and wait")).to_be_visible(timeout=15_000)
            await page.get_by_role("button", name="Deploy").click()
            await expect(page.locator("#link")).to_have_text("Live", timeout=15_000)
            await page.evaluate("window.sameOne = true")
            status = page.locator("#part-deployment .head .pill")
            await expect(status).to_have_text("succeeded", timeout=60_000)
            assert await page.evaluate("window.sameOne === true"), "it was reloaded"
            for instance, last in (("r2-1", "serving"), ("r2-2", "serving"), ("r1-1", "stopped"), ("r1-2", "stopped")):
                row = page.locator(f"#instance-{service_fixture.service}-{instance}")
                await expect(row.locator(".pill")).to_have_text(last)
            await expect(page.locator("#track-traffic")).to_contain_text("100 % r2")

            broken = await service_fixture.begin(command=["python", "-c", "exit('no DATABASE_URL')"])
            await page.goto(f"{service_fixture.sluice.url}/ui/deployments/{broken['id']}")
            await expect(status).to_have_text("rolled back", timeout=60_000)
            await expect(page.locator("#part-failures pre").first).to_contain_text("no DATABASE_URL")
            await expect(page.locator("#part-failures summary").first).to_contain_text("exit code 1")
        await browser.close()
