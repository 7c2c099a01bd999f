"""Authentication: tokens, their scopes and services, and the sessions that one-time links open."""

from __future__ import annotations

import re
import shutil
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from app.log_config import configure
from app.settings import Settings
from services.auth.tokens import SCOPES, new_token, scope_includes, well_formed
from services.store.tables import Token
from tests.support.app_fixture import AppFixture, build, living

NEEDS = [
    ("GET", "/services", None, "read"),
    ("GET", "/services/web", None, "read"),
    ("GET", "/deployments/1", None, "read"),
    ("GET", "/events", None, "read"),
    ("GET", "/audit", None, "read"),
    ("GET", "/metrics", None, "read"),
    ("GET", "/openapi.json", None, None),
    ("POST", "/sign-in-links", {}, "read"),
    ("POST", "/deployments", {"service": "web", "image": "web:1"}, "deploy"),
    ("POST", "/deployments", {"service": "web", "image": "web:1", "note": "x", "expected_revision": 1}, "deploy"),
    ("POST", "/deployments", {"service": "web", "profile": None}, "deploy"),
    ("POST", "/deployments", {"service": "web", "image": "web:1", "replicas": 1}, "write"),
    ("POST", "/deployments", {"service": "web", "environment": {}}, "write"),
    ("POST", "/deployments", {"service": "web", "image": "web:1", "mode": "replace"}, "write"),
    ("POST", "/services/web/scale", {"replicas": 1}, "deploy"),
    ("POST", "/services/web/restart", {}, "deploy"),
    ("POST", "/services/web/rollback", {}, "deploy"),
    ("POST", "/deployments/1/pause", {}, "deploy"),
    ("POST", "/deployments/1/resume", {}, "deploy"),
    ("POST", "/deployments/1/abort", {}, "deploy"),
    ("POST", "/deployments/1/retry", {}, "deploy"),
    ("DELETE", "/services/nope", None, "write"),
    ("GET", "/tokens", None, "admin"),
    ("POST", "/tokens", {"name": "x", "scope": "read"}, "admin"),
    ("DELETE", "/tokens/99", None, "admin"),
]


def test_routes_need_their_scope_and_no_more(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    tokens = {scope: app_fixture.as_scope(scope) for scope in SCOPES}
    for method, path, body, needed in NEEDS:
        for scope in SCOPES:
            answer = app_fixture.client.request(method, path, json=body, headers=tokens[scope])
            refused = answer.status_code == 403
            allowed = needed is None or scope_includes(scope, needed)
            assert refused != allowed, f"{scope}: {method} {path} {body} → {answer.status_code} {answer.text[:200]}"
            if refused:
                assert answer.json()["code"] == "insufficient_scope"
                assert "scope" in answer.json()["detail"]


def test_deploy_scope_cannot_create_a_service(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.post(
        "/deployments", json={"service": "new", "image": "x:1"}, headers=app_fixture.as_scope("deploy")
    )
    assert answer.status_code == 403
    assert app_fixture.count("/services") == 0


def test_bound_token_changes_only_its_services(app_fixture: AppFixture) -> None:
    app_fixture.deploy("web")
    app_fixture.deploy("api", "api:1")
    bound = app_fixture.as_scope("write", services=["web"])
    assert app_fixture.client.post("/services/web/restart?wait=20", headers=bound).status_code == 200
    for method, path, body in [
        ("POST", "/services/api/restart", {}),
        ("POST", "/services/api/scale", {"replicas": 0}),
        ("POST", "/services/api/rollback", {}),
        ("DELETE", "/services/api", None),
        ("POST", "/deployments", {"service": "api", "image": "api:1"}),
        ("POST", "/deployments", {"service": "other", "image": "api:1"}),
        ("POST", "/deployments/2/retry", {}),
        ("POST", "/deployments/2/abort", {}),
    ]:
        answer = app_fixture.client.request(method, path, json=body, headers=bound)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), path
    assert app_fixture.client.get("/services/api", headers=bound).status_code == 200


SECRETS: dict[str, Any] = {
    "environment": {"DB_PASSWORD": "hunter2", "LEVEL": "info", "DATABASE_URL": "postgres://app:hunter3@db/x"},
    "profiles": {"prod": {"environment": {"API_KEY": "hunter4"}}},
}


def test_token_may_be_bound_by_a_pattern(app_fixture: AppFixture) -> None:
    for name in ("pay-api", "pay-web", "shop"):
        app_fixture.deploy(name)
    bound = app_fixture.as_scope("deploy", services=["pay-*"])
    for name, status in (("pay-api", 202), ("pay-web", 202), ("shop", 403)):
        answer = app_fixture.client.post(f"/services/{name}/restart", headers=bound)
        assert answer.status_code == status, name
    assert "pay-* only" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"services": ["Pay-*"]}, "services.0"),
        ({"services": ["pay-[a]"]}, "services.0"),
        ({"services": []}, "services"),
        ({"name": "-"}, "name"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": "99999h"}, "expires_in"),
        ({"scope": "root"}, "scope"),
    ],
)
def test_invalid_token_request_is_refused_by_field(app_fixture: AppFixture, wrong: dict[str, Any], field: str) -> None:
    answer = app_fixture.client.post("/tokens", json={"name": "ci", "scope": "read", **wrong})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert app_fixture.count("/tokens") == 1


def test_secrets_are_masked_in_every_answer(app_fixture: AppFixture) -> None:
    app_fixture.deploy(**SECRETS)
    app_fixture.deploy(environment={"DB_PASSWORD": "hunter5"}, profile="prod")
    app_fixture.client.post("/deployments", json={"service": "web", "image": "web:2", "environment": {"TOKEN": ["hunter6"]}})
    for path in (
        "/services", "/services/web", "/services/web/revisions", "/services/web/revisions/1", "/services/web/revisions/2",
        "/deployments", "/deployments/1", "/deployments/2", "/events", "/audit", "/instances", "/metrics",
        "/ui/services/web",
    ):  # fmt: skip
        answer = app_fixture.client.get(path)
        assert answer.status_code == 200, path
        assert not re.search("hunter[23456]", answer.text), path
    shown = app_fixture.client.get("/services/web").json()["spec"]["environment"]
    assert shown == {"DB_PASSWORD": "***", "LEVEL": "info", "DATABASE_URL": "postgres://app:***@db/x"}


def test_spec_with_masked_secrets_is_refused(app_fixture: AppFixture) -> None:
    app_fixture.deploy(**SECRETS)
    spec = app_fixture.client.get("/services/web").json()["spec"]
    for mode in ("merge", "replace"):
        answer = app_fixture.client.post("/deployments", json={"service": "web", "mode": mode, **spec})
        assert (answer.status_code, answer.json()["code"]) == (422, "redacted_value")
        fields = [wrong["field"] for wrong in answer.json()["errors"]]
        assert fields == ["environment.DB_PASSWORD", "environment.DATABASE_URL", "profiles.prod.environment.API_KEY"]
    assert app_fixture.count("/deployments") == 1


def test_store_error_does_not_contain_the_written_values(app_fixture: AppFixture) -> None:
    def twice(session: Session) -> None:
        session.add(Token(name="hunter2", digest="d", scope="read", created_at=0))
        session.add(Token(name="hunter2", digest="d", scope="read", created_at=0))

    with pytest.raises(IntegrityError) as error, app_fixture.sluice.store.write_session() as session:
        twice(session)
    assert "hunter2" not in str(error.value)


def test_token_is_shown_once_and_only_its_hmac_is_stored(app_fixture: AppFixture) -> None:
    made = app_fixture.client.post(
        "/tokens", json={"name": "ci", "scope": "deploy", "services": ["web"], "expires_in": "1h"}
    )
    token = made.json()["token"]
    assert well_formed(token)
    assert made.headers["cache-control"] == "no-store"
    listed = app_fixture.client.get("/tokens").json()["items"][0]
    assert (listed["name"], listed["scope"], listed["services"]) == ("ci", "deploy", ["web"])
    assert listed["expires_at"] > listed["created_at"]
    assert "token" not in listed
    retained = b"".join(path.read_bytes() for path in app_fixture.data.glob("sluice.db*"))
    assert token.encode() not in retained
    assert app_fixture.token.encode() not in retained
    assert (app_fixture.data / "admin.token").stat().st_mode & 0o777 == 0o600
    assert (app_fixture.data / "token.key").stat().st_mode & 0o777 == 0o600


def test_token_may_be_valid_for_a_year(app_fixture: AppFixture) -> None:
    made = app_fixture.client.post("/tokens", json={"name": "ci", "scope": "read", "expires_in": "8760h"}).json()
    assert int(made["expires_at"][:4]) == int(made["created_at"][:4]) + 1


def test_token_list_shows_the_last_use(app_fixture: AppFixture) -> None:
    read = app_fixture.as_scope("read")
    assert app_fixture.client.get("/tokens").json()["items"][0]["last_used_at"] is None
    app_fixture.client.get("/services", headers=read)
    assert app_fixture.client.get("/tokens").json()["items"][0]["last_used_at"] is not None


def test_revoked_token_is_refused_at_once(app_fixture: AppFixture) -> None:
    read = app_fixture.as_scope("read")
    id = app_fixture.client.get("/tokens").json()["items"][0]["id"]
    assert app_fixture.client.delete(f"/tokens/{id}").status_code == 204
    assert app_fixture.client.get("/services", headers=read).status_code == 401
    assert app_fixture.client.delete(f"/tokens/{id}").status_code == 404
    last = app_fixture.client.delete("/tokens/1")
    assert (last.status_code, last.json()["code"]) == (409, "last_admin_token")


def test_expired_token_is_refused(app_fixture: AppFixture) -> None:
    soon = app_fixture.as_scope("read", expires_in=0.001)
    assert app_fixture.client.get("/services", headers=soon).status_code == 401


def test_token_creation_and_revocation_are_audited_with_the_actor(app_fixture: AppFixture) -> None:
    app_fixture.as_scope("admin")
    app_fixture.client.delete("/tokens/2")
    types = [
        (event["type"], event["actor"]["name"], event["token"]) for event in app_fixture.client.get("/audit").json()["items"]
    ]
    assert types == [("token_revoked", "admin", 1), ("token_created", "admin", 1), ("token_created", "sluice", None)]
    assert app_fixture.client.get("/audit?actor=sluice").json()["items"][0]["type"] == "token_created"
    assert app_fixture.client.get("/audit?actor=missing").json()["items"] == []


def test_sign_in_and_sign_out_are_audited(app_fixture: AppFixture) -> None:
    app_fixture.client.post("/sign-in-links", json={})
    cookie = signed_in(app_fixture, token=app_fixture.token, remote="192.0.2.7")
    signed_in(app_fixture, token="sl_guess", remote="192.0.2.8")
    app_fixture.call(partial(app_fixture.sluice.auth.sign_out, cookie, remote="192.0.2.7"))
    reported = [
        (event["type"], event["actor"], event["remote"]) for event in app_fixture.client.get("/audit").json()["items"]
    ]
    admin = {"kind": "session", "name": "admin"}
    assert reported[:4] == [
        ("signed_out", admin, "192.0.2.7"),
        ("sign_in_refused", {"kind": "anonymous", "name": "anonymous"}, "192.0.2.8"),
        ("signed_in", admin, "192.0.2.7"),
        ("sign_in_link_made", {"kind": "token", "name": "admin"}, "testclient"),
    ]


def test_sign_out_everywhere_ends_only_the_sessions_of_the_same_token(app_fixture: AppFixture) -> None:
    other = app_fixture.as_scope("read")["Authorization"].partition(" ")[2]
    mine, elsewhere, theirs = (
        signed_in(app_fixture, token=token) for token in (app_fixture.token, app_fixture.token, other)
    )
    app_fixture.call(partial(app_fixture.sluice.auth.sign_out, mine, everywhere=True))
    sessions = [app_fixture.call(app_fixture.sluice.auth.session, cookie) for cookie in (mine, elsewhere, theirs)]
    assert [session is not None for session in sessions] == [False, False, True]


def test_admin_token_is_created_at_the_first_start_only(tmp_path: Path) -> None:
    with living(build(tmp_path)) as app_fixture:
        token = app_fixture.token
    with living(build(tmp_path)) as app_fixture:
        assert app_fixture.token == token
        assert app_fixture.client.get("/services", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize(("terminal", "container", "shown"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_admin_token_is_printed_on_a_terminal_and_its_file_is_named_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, container: bool, shown: int
) -> None:
    class Stderr(StringIO):
        def isatty(self) -> bool:
            return terminal

    stderr, stdout, mark = Stderr(), StringIO(), tmp_path / "container"
    if container:
        mark.touch()
    with monkeypatch.context() as patched:
        patched.setattr("app.main.CONTAINER_MARK", mark)
        patched.setattr("sys.stderr", stderr)
        patched.setattr("sys.stdout", stdout)
        configure(Settings(log_level="info"))
        for _ in range(2):
            with living(build(tmp_path / "data")) as app_fixture:
                token = app_fixture.token
    configure(Settings(log_level="warning"))
    said = stdout.getvalue() + stderr.getvalue()
    assert said.count(token) == shown
    assert said.count("admin.token") == 1, "the second start makes none"


def test_restored_database_without_its_key_gets_a_new_admin_token(tmp_path: Path) -> None:
    with living(build(tmp_path / "old")) as app_fixture:
        old = app_fixture.token
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "old" / "sluice.db", tmp_path / "new" / "sluice.db")
    with living(build(tmp_path / "new")) as app_fixture:
        assert app_fixture.token != old
        assert app_fixture.client.get("/tokens").status_code == 200
        assert app_fixture.client.get("/tokens", headers={"Authorization": f"Bearer {old}"}).status_code == 401


def signed_in(app_fixture: AppFixture, **by: str) -> Any:
    """Sign in and return the value of the session cookie, or None."""
    return app_fixture.call(partial(app_fixture.sluice.auth.sign_in, **by))


def test_sign_in_link_opens_one_session_with_the_scope_of_its_token(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    read = app_fixture.as_scope("read")
    link = app_fixture.client.post("/sign-in-links", headers=read).json()
    code = link["url"].partition("code=")[2]
    assert link["url"].startswith("http://sluice.test/ui/sign-in?code=")
    app_fixture.call(app_fixture.sluice.auth.expire)
    cookie = signed_in(app_fixture, code=code)
    assert signed_in(app_fixture, code=code) is None, "once"
    assert signed_in(app_fixture, code="x" * 32) is None
    del app_fixture.client.headers["Authorization"]
    app_fixture.client.cookies.set("sluice_session_sluice", cookie)
    assert app_fixture.client.get("/services").status_code == 200
    here = {"Sec-Fetch-Site": "same-origin"}
    assert app_fixture.client.post("/services/web/restart", headers=here).status_code == 403, "its scope is read"
    app_fixture.call(app_fixture.sluice.auth.sign_out, cookie)
    assert app_fixture.client.get("/services").status_code == 401


def test_request_from_another_site_cannot_use_the_session_cookie(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    cookie = signed_in(app_fixture, token=app_fixture.token)
    del app_fixture.client.headers["Authorization"]
    app_fixture.client.cookies.set("sluice_session_sluice", cookie)
    for headers, allowed in [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://sluice.test"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://sluice.test"}, False),
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ]:
        answer = app_fixture.client.post("/services/web/scale", json={"replicas": 1}, headers=headers)
        assert (answer.status_code == 202) == allowed, headers
        if not allowed:
            assert answer.json()["code"] == "cross_site"
    assert app_fixture.client.get("/audit").json()["items"][0]["type"] == "refused"
    assert app_fixture.client.get("/services", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, (
        "reading changes nothing"
    )


def test_mistyped_token_is_detected_by_its_checksum(app_fixture: AppFixture) -> None:
    token = new_token()
    assert well_formed(token)
    assert not well_formed(token[:-1])
    assert not well_formed(token[:10] + ("a" if token[10] != "a" else "b") + token[11:])
    assert not well_formed("")
    assert not well_formed("sl_é" + "a" * 37)
    assert app_fixture.client.get("/services", headers={"Authorization": f"Bearer {token}"}).status_code == 401
