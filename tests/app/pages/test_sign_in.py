"""Signing in and out of the dashboard."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.pages.dependencies import within
from services.auth.login_throttle import FAILURE_WINDOW, MAX_FAILURES
from services.store.tables import BrowserSession as Opened
from tests.app.pages.conftest import SAME_SITE
from tests.support.dashboard_fixture import DashboardFixture

COOKIE = "sluice_session_sluice"


def test_page_without_a_session_redirects_to_the_sign_in_page_and_back(anonymous_browser: TestClient) -> None:
    answer = anonymous_browser.get("/ui/deployments/17")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/ui/sign-in?next=%2Fui%2Fdeployments%2F17"
    assert 'value="/ui/deployments/17"' in anonymous_browser.get(answer.headers["location"]).text


def test_api_reference_redirects_a_browser_to_the_sign_in_page_and_back(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient
) -> None:
    answer = anonymous_browser.get("/docs", headers={"Accept": "text/html,application/xhtml+xml"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/sign-in?next=%2Fdocs")
    assert anonymous_browser.get("/docs", headers={"Accept": "application/json"}).status_code == 401
    signed_in = anonymous_browser.post("/ui/sign-in", data={"token": dashboard_fixture.token, "next": "/docs"})
    assert signed_in.headers["location"] == "/docs"
    assert anonymous_browser.get("/docs").status_code == 200


def test_sign_in_link_works_once(dashboard_fixture: DashboardFixture, anonymous_browser: TestClient) -> None:
    code = dashboard_fixture.link()
    looked_at = anonymous_browser.get("/ui/sign-in", params={"code": code})
    assert looked_at.status_code == 200
    assert "set-cookie" not in looked_at.headers, "to look at a link must not use it up"

    answer = anonymous_browser.post("/ui/sign-in", data={"code": code, "next": "/ui/services/web"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/services/web")
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(COOKIE)
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert anonymous_browser.get("/ui/").status_code == 200

    again = anonymous_browser.post("/ui/sign-in", data={"code": code})
    assert again.status_code == 401
    assert "Used or expired link" in again.text
    assert "set-cookie" not in again.headers


def test_token_signs_in(dashboard_fixture: DashboardFixture, anonymous_browser: TestClient) -> None:
    assert anonymous_browser.post("/ui/sign-in", data={"token": "sl_wrong"}).status_code == 401
    assert anonymous_browser.get("/ui/").status_code == 303
    assert anonymous_browser.post("/ui/sign-in", data={"token": f" {dashboard_fixture.token}\n"}).status_code == 303
    assert anonymous_browser.get("/ui/").status_code == 200


def test_sign_in_form_refuses_a_large_body(anonymous_browser: TestClient) -> None:
    assert anonymous_browser.post("/ui/sign-in", data={"token": "x" * 100_000}).status_code == 413


def test_invalid_token_is_reported_beside_its_field(anonymous_browser: TestClient) -> None:
    text = anonymous_browser.post("/ui/sign-in", data={"token": "sl_wrong", "next": "/ui/services/web"}).text
    assert 'aria-describedby="error-token"' in text
    assert "Unknown, expired or revoked" in text
    assert "sl_wrong" not in text, "a token that was nearly right must not stay on the screen"
    assert 'value="/ui/services/web"' in text


def test_sign_in_throttle_delays_only_the_address_that_guesses(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient
) -> None:
    for _ in range(MAX_FAILURES):
        assert anonymous_browser.post("/ui/sign-in", data={"token": "sl_guess"}).status_code == 401
    late = anonymous_browser.post("/ui/sign-in", data={"token": dashboard_fixture.token})
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= FAILURE_WINDOW
    assert "try again in 5 min" in late.text
    with TestClient(dashboard_fixture.app, client=("192.0.2.9", 1234), follow_redirects=False, headers=SAME_SITE) as other:
        assert other.post("/ui/sign-in", data={"token": dashboard_fixture.token}).status_code == 303


def test_session_cookie_is_bound_to_https_and_the_host_when_served_by_https(dashboard_fixture: DashboardFixture) -> None:
    for scheme, secure, name in (("https", True, f"__Host-{COOKIE}"), ("http", False, COOKIE)):
        with TestClient(
            dashboard_fixture.app, base_url=f"{scheme}://sluice.test", follow_redirects=False, headers=SAME_SITE
        ) as client:
            made = client.post("/ui/sign-in", data={"token": dashboard_fixture.token}).headers["set-cookie"]
            assert made.startswith(f"{name}=")
            assert ("secure" in made.lower()) == secure
            assert "path=/;" in made.lower() and "domain" not in made.lower(), "no browser takes it otherwise"
            assert client.get("/ui/").status_code == 200
            gone = client.post("/ui/sign-out").headers["set-cookie"]
            assert gone.startswith(f"{name}=") and ("secure" in gone.lower()) == secure
            assert client.get("/ui/").status_code == 303


def test_session_cookie_set_over_http_is_not_accepted_over_https(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    cookie = admin_browser.cookies[COOKIE]
    for name, status in ((COOKIE, 303), (f"__Host-{COOKIE}", 200)):
        with TestClient(
            dashboard_fixture.app, base_url="https://sluice.test", follow_redirects=False, cookies={name: cookie}
        ) as client:
            assert client.get("/ui/").status_code == status


def test_sign_in_from_another_site_is_refused(dashboard_fixture: DashboardFixture, anonymous_browser: TestClient) -> None:
    answer = anonymous_browser.post(
        "/ui/sign-in", data={"code": dashboard_fixture.link()}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_sign_out_ends_the_session(admin_browser: TestClient) -> None:
    cookie = admin_browser.cookies[COOKIE]
    answer = admin_browser.post("/ui/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/sign-in")
    admin_browser.cookies.set(COOKIE, cookie)
    assert admin_browser.get("/ui/").status_code == 303


def test_expired_session_redirects_to_the_sign_in_page(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    with dashboard_fixture.sluice.store.write_session() as session:
        for row in session.exec(select(Opened)):
            row.expires_at = dashboard_fixture.sluice.clock.now() - 1
    assert admin_browser.get("/ui/").status_code == 303
    assert admin_browser.get("/ui/stream").status_code == 401


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.test/ui/",
        "//evil.test",
        "/ui/\\evil",
        "/ui/\r\nSet-Cookie: a=b",
        "/deployments",
        "/ui/sign-in?code=x",
        "",
    ],
)
def test_redirect_target_never_leaves_the_dashboard(address: str) -> None:
    assert within(address) == "/ui/"


def test_root_redirects_to_the_dashboard(admin_browser: TestClient) -> None:
    for path in ("/", "/ui"):
        assert admin_browser.get(path).headers["location"] == "/ui/"


@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/sign-out", "/ui/new", "/ui/tokens", "/ui/services/web/deploy"])
def test_no_page_reads_unbounded_form(anonymous_browser: TestClient, path: str) -> None:
    """A form may have a thousand fields of a megabyte; who sends it need not be signed in."""
    form = "&".join(f"f{number}={'x' * 500_000}" for number in range(4))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert anonymous_browser.post(path, content=form, headers=headers).status_code == 413
    file = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"x" * 2_000_000 + b"\r\n--x--\r\n"
    assert (
        anonymous_browser.post(path, content=file, headers={"Content-Type": "multipart/form-data; boundary=x"}).status_code
        == 413
    )
