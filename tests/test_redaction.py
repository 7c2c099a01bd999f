"""Values that count as secrets, the masks that replace them, and the refusal of masks as values."""

from __future__ import annotations

import pytest

from services.masking import MAX_CHARACTERS, MAX_LINE, MAX_SECRETS, log_mask, too_many_secrets
from services.redaction import masked_fields, redacted
from services.rollouts.requests.spec_diff import diff_specs

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


def test_every_secret_of_spec_is_masked_and_nothing_else() -> None:
    shown = redacted(SPEC)
    assert shown["environment"] == {
        "DB_PASSWORD": "***", "PIN_PWD": "***", "LEVEL": "info", "DSN": "postgres://app:***@db/x",
    }  # fmt: skip
    assert shown["command"] == ["serve", "--db", "redis://:***@cache"]
    assert shown["retry_with_idempotency_key"] is True
    assert shown["profiles"]["token"] == {"replicas": 2}
    for secret in ("hunter", "1234", "letmein", "aHVudGVyOg", "label-secret", "B5A79AAD", "npm_"):
        assert secret not in str(shown), secret


def test_mask_of_secret_is_recognised_when_it_is_sent_back() -> None:
    assert sorted(masked_fields(redacted(SPEC))) == sorted(HIDDEN_AT)
    assert list(masked_fields(SPEC)) == []
    assert list(masked_fields({"environment": {"MASK": "***"}})) == [], "a name that hides nothing may have any value"


@pytest.mark.parametrize("name", ["AUTHOR", "KEYBOARD", "MONKEY", "BYPASS_ROUTES", "PATH", "TZ"])
def test_harmless_name_masks_nothing(name: str) -> None:
    assert redacted({"environment": {name: "shown"}})["environment"][name] == "shown"


@pytest.mark.parametrize(
    "name",
    ["db_password", "SPRING_DATASOURCE_PASSWORD", "apiKey", "X-API-Key", "AWS_SECRET_ACCESS_KEY", "JWT_SECRET", "GH_TOKEN",
     "AZURE_CONNECTION_STRING", "SESSION_COOKIE", "SSH_KEY", "HTTP_AUTH", "spring.mail.pass"],
)  # fmt: skip
def test_secret_name_masks_its_value(name: str) -> None:
    assert redacted({"environment": {name: "hidden"}})["environment"][name] == "***"


def test_secret_of_several_lines_is_masked_line_by_line() -> None:
    mask = log_mask({"environment": {"TLS_KEY": "-----BEGIN KEY-----\nMIIEvQIBADAN\nabc\n-----END KEY-----"}})
    assert mask.text("loaded MIIEvQIBADAN, abc") == "loaded ***, abc"
    assert log_mask({}).text("nothing to hide") == "nothing to hide"
    escaped = log_mask({"environment": {"SIGNING_KEY": "first-line-1\\nsecond-line-2"}})
    assert escaped.text("first-line-1\nsecond-line-2, first-line-1\\nsecond-line-2") == "***\n***, ***"


def test_output_of_instance_is_masked() -> None:
    text = "connecting with hunter2-hunter2 to postgres://app:letmein99@db/x; PIN 1234\n"
    assert log_mask(SPEC).text(text) == "connecting with *** to postgres://app:***@db/x; PIN ***\n"


@pytest.mark.parametrize(
    ("password", "text", "shown"),
    [
        ("postgres", "connecting to postgres://db, driver postgres 17", "connecting to postgres://db, driver postgres 17"),
        ("postgres", "PASSWORD=postgres user=postgres;", "PASSWORD=*** user=***;"),
        ("postgres", "password: postgres", "password: ***"),
        (
            "postgres",
            """{"password":"postgres", 'p': 'postgres', `postgres`}""",
            """{"password":"***", 'p': '***', `***`}""",
        ),
        ("postgres", "redis://postgres@cache", "redis://***@cache"),
        ("postgres", "postgresql=postgresql, /var/lib/postgres", "postgresql=postgresql, /var/lib/postgres"),
        ("airflow", "/opt/airflow/dags of airflow", "/opt/airflow/dags of airflow"),
        ("correct horse", "it is correct horse, xcorrect horsex", "it is ***, x***x"),
        ("letmeinplease", "letmeinplease", "***"),
        ("hunter2", "hunter2 is not hunter22", "*** is not hunter22"),
        ("hunter22", "xhunter22x", "x***x"),
        ("true", "tls=true", "tls=true"),
        ("abc", "x=abc", "x=abc"),
    ],
)
def test_short_secret_is_masked_only_in_the_place_of_a_value(password: str, text: str, shown: str) -> None:
    assert log_mask({"environment": {"POSTGRES_PASSWORD": password}}).text(text) == shown


def test_short_secrets_that_overlap_are_all_masked() -> None:
    mask = log_mask(
        {"environment": {"A_TOKEN": "pass", "B_TOKEN": "pass-x", "C_TOKEN": "s-word", "D_TOKEN": "longer-password"}}
    )
    assert mask.text("=pass-xy =pass-x 'pass-word longer-password") == "=***-xy =*** '***-word ***"


KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEowIBAAKCAQEA\nq83vEjRWeJCrze8=\n"
    "-----END RSA PRIVATE KEY-----"
)
TOKENS = [
    ("ghp_0123456789abcdefABCDEF0123456789abcd", "ghp_***"),
    ("gho_0123456789abcdefABCDEF0123456789abcd", "gho_***"),
    ("ghs_0123456789abcdefABCDEF0123456789abcd", "ghs_***"),
    ("github_pat_11ABCDEFG0123456789_abcdefghijklmnop", "github_pat_***"),
    ("glpat-ABCDEFGHIJ_1234567890", "glpat-***"),
    ("xoxb-1234567890-abcdefghij", "xoxb-***"),
    ("xoxp-1234567890-abcdefghij", "xoxp-***"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIA***"),
    ("ASIAIOSFODNN7EXAMPLE", "ASIA***"),
    ("sl_0123456789abcdefABCDEFghijGHIJkl3P08oo", "sl_***"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "eyJ***"),
    ("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "sk_live_***"),
    ("npm_0123456789abcdefABCDEF0123456789abcd", "npm_***"),
    ("pypi-AgEIcHlwaS5vcmcCJDAxMjM0NTY3LTg5YWItY2Rl", "pypi-***"),
    ("postgres://app:letmein99@db/x", "postgres://app:***@db/x"),
    ("postgres://app:let@me@in@db/x", "postgres://app:***@db/x"),
    ("smtp://me@example.org:letmein99@mail", "smtp://me@example.org:***@mail"),
    ('{"redis://:letmein99@h", "x@y"}', '{"redis://:***@h", "x@y"}'),
    (KEY, "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----"),
]


@pytest.mark.parametrize(("secret", "shown"), TOKENS, ids=[shown for _, shown in TOKENS])
def test_secret_of_known_form_is_masked_under_any_name_and_its_mask_recognised(secret: str, shown: str) -> None:
    spec = {"environment": {"SETTING": f"a={secret} b"}, "command": ["serve", f"--with={secret}"]}
    hidden = redacted(spec)
    assert hidden == {"environment": {"SETTING": f"a={shown} b"}, "command": ["serve", f"--with={shown}"]}
    assert sorted(masked_fields(hidden)) == ["command.1", "environment.SETTING"]
    assert list(masked_fields(spec)) == []
    assert redacted(hidden) == hidden
    (change,) = diff_specs({"environment": {}}, {"environment": {"SETTING": secret}})
    assert change.new == shown


@pytest.mark.parametrize(("secret", "shown"), [token for token in TOKENS if token[0] != KEY])
def test_secret_of_known_form_is_masked_in_logs_without_spec(secret: str, shown: str) -> None:
    assert log_mask({}).text(f"using '{secret}'\n") == f"using '{shown}'\n"


@pytest.mark.parametrize(
    "text",
    ["npm_config_cache", "my_sl_table", "sl_short", "AKIA", "AKIAIOSFODNN7EXAMPLEandmore", "eyJust.a.word", "ghp_", "xoxo-",
     "pypi-simple", "http://host:8080/x@y", "-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----\nMIIEowIBAAKC",
     'expected a file with "-----BEGIN PRIVATE KEY-----"'],
)  # fmt: skip
def test_harmless_text_is_shown_unchanged(text: str) -> None:
    assert redacted({"environment": {"A": text}}) == {"environment": {"A": text}}
    assert log_mask({}).text(text) == text


def test_private_key_in_log_is_masked_until_its_end() -> None:
    log = f"before\n{KEY}\nafter\n2026-11-30 INFO -----BEGIN PRIVATE KEY-----\n2026-11-30 INFO {'A' * 64}\nan error\n"
    assert log_mask({}).text(log) == (
        "before\n-----BEGIN RSA PRIVATE KEY-----\n***\n***\n***\n***\n-----END RSA PRIVATE KEY-----\nafter\n"
        "2026-11-30 INFO -----BEGIN PRIVATE KEY-----\n***\nan error\n"
    )


def test_private_key_under_harmless_name_is_masked_line_by_line() -> None:
    mask = log_mask({"environment": {"BUNDLE": KEY}})
    assert mask.text("loaded MIIEowIBAAKCAQEA from the bundle") == "loaded *** from the bundle"


def test_longest_of_secrets_with_common_prefix_is_masked_completely() -> None:
    mask = log_mask({"environment": {"A_TOKEN": "abcdefg1", "B_TOKEN": "abcdefg1-longer", "C_TOKEN": "efg1-longer-still"}})
    assert mask.text("abcdefg1 abcdefg1-longer abcdefg1-long efg1-longer-still") == "*** *** ***-long ***"


def test_each_secret_of_large_spec_is_masked_and_near_misses_are_not() -> None:
    secrets = [f"{'a' * 1990}{number:010d}" for number in range(200)]
    spec = {"environment": {f"TOKEN_{number}": secret for number, secret in enumerate(secrets)}}
    assert too_many_secrets(spec) is None
    mask, near = log_mask(spec), "a" * 16_000
    assert mask.text("\n".join([near, *secrets, near])) == "\n".join([near, *["***"] * 200, near])
    assert log_mask(spec) is mask, "an equal spec needs no second automaton"


def test_line_that_is_too_long_is_truncated_after_its_secrets_are_masked() -> None:
    mask = log_mask({"environment": {"TOKEN": "hunter2-hunter2"}})
    line = "x" * (MAX_LINE - 3) + "hunter2-hunter2" + "y" * 10
    assert mask.text(line) == "x" * (MAX_LINE - 3) + "***" + "…"


HOSTILE = [
    "eyJ", "eyJaaaaaaaaaa.", "eyJ-", "://", "a://a:", "a://a:b@c", "@c", "a" * 16 + "://", "xoxb-", "ghp_", "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----", "-----END ", "github_pat_", "sl_a", "AKIA", "glpat-.", "a", "-", "=", "@",
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_masking_of_long_line_of_secret_prefixes_ends(part: str) -> None:
    """Each case takes a fraction of a second. Quadratic masking takes an hour and exceeds the tests' timeout."""
    line = part * (1_000_000 // len(part))
    log_mask({"environment": {"TOKEN": "a" * 5000 + "b"}}).text(line)
    log_mask({"environment": {f"TOKEN_{n}": "a" * n for n in range(4, 12)}}).text(line)
    list(masked_fields({"environment": {"A": line + "***"}}))


def test_secrets_beyond_memory_limit_are_refused() -> None:
    assert too_many_secrets({"environment": {"KEY": "\n".join(f"line-{n:08d}" for n in range(MAX_SECRETS))}}) is None
    lines = {"environment": {"KEY": "\n".join(f"line-{n:08d}" for n in range(MAX_SECRETS + 1))}}
    long = {"environment": {f"TOKEN_{n}": f"{n}" + "x" * 100_000 for n in range(MAX_CHARACTERS // 100_000 + 1)}}
    for spec in (lines, long):
        assert "too many secrets to mask in logs" in str(too_many_secrets(spec))
