"""What counts as a secret, where it is hidden, and that what is shown in its place cannot come back as the value."""

from __future__ import annotations

import pytest

from services.rollouts.redaction import mask_of, placeholders, redacted

SPEC = {
    "image": "web:1",
    "environment": {
        "DB_PASSWORD": "hunter2-hunter2",
        "PIN_PWD": 1234,
        "LEVEL": "info",
        "DSN": "postgres://app:letmein99@db/x",
    },
    "healthcheck": {"path": "/", "headers": {"Authorization": "Basic aHVudGVyOg=="}},
    "labels": {"api-key": "label-secret"},
    "logging": {"driver": "splunk", "options": {"splunk-token": "B5A79AAD"}},
    "build": {"context": ".", "args": {"NPM_TOKEN": "npm_0123456789"}},
    "command": ["serve", "--db", "redis://:letmein88@cache"],
    "retry_with_idempotency_key": True,
    "profiles": {"prod": {"environment": {"API_KEY": "hunter4-hunter4"}}, "token": {"replicas": 2}},
}
HIDDEN_AT = [
    "environment.DB_PASSWORD", "environment.PIN_PWD", "environment.DSN", "healthcheck.headers.Authorization",
    "labels.api-key",
    "logging.options.splunk-token", "build.args.NPM_TOKEN", "command.2", "profiles.prod.environment.API_KEY",
]  # fmt: skip


def test_every_secret_of_a_spec_is_hidden_and_nothing_else() -> None:
    shown = redacted(SPEC)
    assert shown["environment"] == {
        "DB_PASSWORD": "***", "PIN_PWD": "***", "LEVEL": "info", "DSN": "postgres://app:***@db/x",
    }  # fmt: skip
    assert shown["command"] == ["serve", "--db", "redis://:***@cache"]
    assert shown["retry_with_idempotency_key"] is True
    assert shown["profiles"]["token"] == {"replicas": 2}
    for secret in ("hunter", "1234", "letmein", "aHVudGVyOg", "label-secret", "B5A79AAD", "npm_"):
        assert secret not in str(shown), secret


def test_what_is_shown_in_a_secrets_place_is_known_when_it_comes_back() -> None:
    assert sorted(placeholders(redacted(SPEC))) == sorted(HIDDEN_AT)
    assert list(placeholders(SPEC)) == []
    assert list(placeholders({"environment": {"MASK": "***"}})) == [], "a name that hides nothing may have any value"


@pytest.mark.parametrize("name", ["AUTHOR", "KEYBOARD", "MONKEY", "BYPASS_ROUTES", "PATH", "TZ"])
def test_a_harmless_name_hides_nothing(name: str) -> None:
    assert redacted({"environment": {name: "shown"}})["environment"][name] == "shown"


@pytest.mark.parametrize(
    "name",
    ["db_password", "SPRING_DATASOURCE_PASSWORD", "apiKey", "X-API-Key", "AWS_SECRET_ACCESS_KEY", "JWT_SECRET", "GH_TOKEN",
     "AZURE_CONNECTION_STRING", "SESSION_COOKIE", "SSH_KEY", "HTTP_AUTH", "spring.mail.pass"],
)  # fmt: skip
def test_a_secret_name_hides_its_value(name: str) -> None:
    assert redacted({"environment": {name: "hidden"}})["environment"][name] == "***"


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    mask = mask_of({"environment": {"TLS_KEY": "-----BEGIN KEY-----\nMIIEvQIBADAN\nabc\n-----END KEY-----"}})
    assert mask("loaded MIIEvQIBADAN, abc") == "loaded ***, abc"
    assert mask_of({})("nothing to hide") == "nothing to hide"


def test_what_an_instance_writes_is_masked() -> None:
    text = "connecting with hunter2-hunter2 to postgres://app:letmein99@db/x; PIN 1234\n"
    assert mask_of(SPEC)(text) == "connecting with *** to postgres://app:***@db/x; PIN 1234\n"
