#!/usr/bin/env python3
"""Take the pictures of docs/screenshots: the dashboard with the data of tests/support/seed_data.py.

Run it with `.venv/bin/python scripts/screenshots.py`, and look at every picture before committing it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from tests.browser.conftest import sign_in  # noqa: E402
from tests.browser.network import CHROMIUM, FLAGS  # noqa: E402
from tests.support.dashboard_fixture import DashboardFixture  # noqa: E402
from tests.support.dashboard_server import free_port, serving  # noqa: E402
from tests.support.seed_data import set_scene  # noqa: E402

TO = ROOT / "docs" / "screenshots"
PAGES = {
    "overview": "/ui/", "service": "/ui/services/api", "deployment": "/ui/deployments/3", "failure": "/ui/deployments/1",
}  # fmt: skip
LOOKS = {"light": (1200, 820, "light"), "dark": (1200, 820, "dark"), "phone": (390, 780, "light")}
WANTED = ("overview-light", "overview-dark", "overview-phone", "service-light", "service-dark", "deployment-light",
          "deployment-dark", "deployment-phone", "failure-light")  # fmt: skip


def main() -> None:
    TO.mkdir(exist_ok=True)
    fixture = DashboardFixture(Path(tempfile.mkdtemp()))
    set_scene(fixture)
    with serving(fixture, free_port()) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for look in LOOKS:
            shoot(browser, fixture, address, look)
        browser.close()
    fixture.close()


def shoot(browser: Browser, fixture: DashboardFixture, address: str, look: str) -> None:
    width, height, scheme = LOOKS[look]
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme, "reduced_motion": "reduce"}
    context = browser.new_context(**options, timezone_id="Europe/Berlin", locale="en-GB")
    page = context.new_page()
    sign_in(page, fixture, address, "/ui/")
    for name, path in PAGES.items():
        if f"{name}-{look}" not in WANTED:
            continue
        page.goto(address + path)
        page.locator("#link[data-state=live]").wait_for()
        page.wait_for_timeout(500)  # charts draw in the next frames
        file = TO / f"{name}-{look}.png"
        page.screenshot(path=file, full_page=name in ("service", "deployment", "failure") or look == "phone")
        sys.stdout.write(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} KB\n")
    context.close()


if __name__ == "__main__":
    main()
