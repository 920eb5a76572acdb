"""Settings: read once, every problem reported at once, nothing dangerous accepted."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.config import HMAC_ALGORITHMS, Settings, from_environ
from socket_server.config.weaknesses import remarks
from socket_server.errors import ConfigError
from tests.unit.config.reading import PRODUCTION, SECRET, VARIABLES, problem, problems, read
from tests.unit.keypairs import private_pem, public_pem

# Defaults


def test_the_defaults_are_those_of_the_table() -> None:
    found = read()
    assert found == Settings(
        app_env="production",
        host="0.0.0.0",
        port=3001,
        client_origins=("http://localhost:5173",),
        jwt_secrets=(SECRET,),
        jwt_algorithms=("HS256", "HS384", "HS512"),
        jwt_leeway_s=10,
        jwt_user_claims=("id", "userId", "sub"),
        jwt_cookie="jwt",
        user_cookie="id",
        api_keys=("key-1",),
        auth_timeout_s=10,
        ping_interval_s=25,
        ping_timeout_s=60,
        max_connections=10_000,
        max_connections_per_user=20,
        max_message_bytes=65_536,
        max_body_bytes=1_048_576,
        max_users_per_broadcast=10_000,
        send_backlog_bytes=1_048_576,
        inbox_url="sqlite:///instance/inbox.db",
        inbox_ttl_s=604_800,
        inbox_max_per_user=1_000,
        drain_s=10,
        log_level="info",
        log_format="text",
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert from_environ({**dict.fromkeys(VARIABLES, ""), **PRODUCTION}) == read()
    assert from_environ({**dict.fromkeys(VARIABLES, "  "), **PRODUCTION}) == read()


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    printed = repr(read(JWT_SECRET=SECRET, API_KEYS="the-api-key", REDIS_URL="redis://:the-password@127.0.0.1:6379/0"))
    assert SECRET not in printed
    assert "the-api-key" not in printed
    assert "the-password" not in printed


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read().port = 1  # type: ignore[misc]


# Production and development


def test_production_needs_a_token_key_and_api_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environ({})
    names = [text.split(" ")[0] for text in caught.value.problems]
    assert names == ["JWT_SECRET", "API_KEYS"]
    assert "JWT_PUBLIC_KEY" in str(caught.value)
    assert "API_KEYS=none" in str(caught.value)


@pytest.mark.parametrize(
    "key", [{"JWT_SECRET": SECRET}, {"JWT_PUBLIC_KEY": public_pem("P-256")}, {"JWT_JWKS_URL": "https://idp.example/jwks"}]
)
def test_any_kind_of_token_key_is_enough_for_production(key: dict[str, str]) -> None:
    assert from_environ({"API_KEYS": "k", **key}).app_env == "production"


def test_development_may_run_without_secrets() -> None:
    found = from_environ({"APP_ENV": "development"})
    assert found.development
    assert (found.jwt_secrets, found.api_keys, found.api_open) == ((), (), False)
    assert found.jwt_algorithms == HMAC_ALGORITHMS


def test_under_flask_run_development_is_the_default() -> None:
    assert from_environ({"FLASK_RUN_FROM_CLI": "true"}).development
    with pytest.raises(ConfigError):
        from_environ({"FLASK_RUN_FROM_CLI": "true", "APP_ENV": "production"})
    with pytest.raises(ConfigError):
        from_environ({"FLASK_RUN_FROM_CLI": "false"})


@pytest.mark.parametrize("value", ["staging", "prod", "dev", "1"])
def test_another_mode_is_a_problem(value: str) -> None:
    assert problem(APP_ENV=value).startswith("APP_ENV")


def test_modes_have_any_case() -> None:
    assert from_environ({"APP_ENV": "Development"}).development


def test_an_open_api_must_be_asked_for() -> None:
    found = read(API_KEYS="none")
    assert found.api_open
    assert found.api_keys == ()
    assert any("API_KEYS=none" in text for text in remarks(found))
    assert not read().api_open


def test_none_beside_api_keys_is_a_problem() -> None:
    assert problem(API_KEYS="key-1,none").startswith("API_KEYS")


def test_keys_and_secrets_are_lists_in_their_order() -> None:
    found = read(API_KEYS=" new , old ,", JWT_SECRET=f"{SECRET}-new, {SECRET}-old")
    assert found.api_keys == ("new", "old")
    assert found.jwt_secrets == (f"{SECRET}-new", f"{SECRET}-old")


@pytest.mark.parametrize("name", ["JWT_SECRET", "API_KEYS"])
@pytest.mark.parametrize("value", [",", " , ,", ""])
def test_a_list_of_nothing_is_missing(name: str, value: str) -> None:
    assert problem(**{name: value}).startswith(f"{name} is missing")


# One message


def test_one_message_lists_every_problem_by_name() -> None:
    bad = {
        "APP_ENV": "nowhere",
        "PORT": "99999",
        "CLIENT_URL": "*, not-an-origin",
        "JWT_PUBLIC_KEY": "/no/such/file.pem",
        "JWT_JWKS_URL": "ftp://x.example",
        "JWT_LEEWAY": "soon",
        "JWT_COOKIE": "a b",
        "USER_COOKIE": "a;b",
        "API_KEYS": "none,k",
        "AUTH_TIMEOUT": "0",
        "PING_INTERVAL": "nan",
        "PING_TIMEOUT": "-1",
        "MAX_CONNECTIONS": "0",
        "MAX_CONNECTIONS_PER_USER": "1.5",
        "MAX_MESSAGE_BYTES": "1",
        "MAX_BODY_BYTES": "1",
        "MAX_USERS_PER_BROADCAST": "0",
        "SEND_BACKLOG_BYTES": "1",
        "INBOX_URL": "postgres://db",
        "INBOX_TTL": "0",
        "INBOX_MAX_PER_USER": "0",
        "DRAIN_SECONDS": "inf",
        "LOG_LEVEL": "loud",
        "LOG_FORMAT": "xml",
        "SSL_CERT": "/no/such/cert.pem",
        "DEMO": "maybe",
        "TRUSTED_PROXIES": "10.0.0.0/99",
        "WEB_CONCURRENCY": "4",
        "TRANSPORTS": "udp",
        "IO_URING": "perhaps",
    }
    with pytest.raises(ConfigError) as caught:
        from_environ(bad)
    message = str(caught.value)
    for name in bad:
        assert f"  - {name} " in message, name
    assert len(message.splitlines()) == 1 + len(caught.value.problems)
    assert len(caught.value.problems) == len(set(caught.value.problems))


def test_the_message_contains_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environ({"JWT_SECRET": SECRET, "API_KEYS": "key-1,none", "JWT_PUBLIC_KEY": private_pem("P-256"), "PORT": "x"})
    message = str(caught.value)
    assert SECRET not in message
    assert "key-1" not in message
    assert private_pem("P-256").splitlines()[1] not in message


def test_quotation_marks_around_a_wrong_value_are_named() -> None:
    found = problems(PORT='"3001"', CLIENT_URL="'https://a.example'", JWT_AUDIENCE="'web'")
    assert [text.split(" ")[:2] for text in found] == [
        ["PORT", "is"],
        ["CLIENT_URL", "has"],
        ["PORT", "has"],
        ["CLIENT_URL", "has"],
    ]
    assert all("remove them" in text for text in found[2:])


# Numbers


BOUNDS = [
    ("PORT", "port", 1, 65_535, True),
    ("JWT_LEEWAY", "jwt_leeway_s", 0, 3_600, False),
    ("AUTH_TIMEOUT", "auth_timeout_s", 0.1, 3_600, False),
    ("PING_INTERVAL", "ping_interval_s", 0.1, 86_400, False),
    ("PING_TIMEOUT", "ping_timeout_s", 0.1, 86_400, False),
    ("MAX_CONNECTIONS", "max_connections", 1, 10_000_000, True),
    ("MAX_CONNECTIONS_PER_USER", "max_connections_per_user", 1, 1_000_000, True),
    ("MAX_CONNECTIONS_PER_IP", "max_connections_per_ip", 0, 10_000_000, True),
    ("MAX_EVENTS_PER_SECOND", "max_events_per_second", 1, 1_000_000, False),
    ("MAX_AUTH_FAILURES_PER_MINUTE", "max_auth_failures_per_minute", 1, 1_000_000, False),
    ("MAX_MESSAGE_BYTES", "max_message_bytes", 1_024, 134_217_728, True),
    ("MAX_BODY_BYTES", "max_body_bytes", 1_024, 1_073_741_824, True),
    ("MAX_USERS_PER_BROADCAST", "max_users_per_broadcast", 1, 10_000_000, True),
    ("SEND_BACKLOG_BYTES", "send_backlog_bytes", 1_024, 1_073_741_824, True),
    ("INBOX_TTL", "inbox_ttl_s", 1, 315_360_000, False),
    ("INBOX_MAX_PER_USER", "inbox_max_per_user", 1, 20_000, True),
    ("DRAIN_SECONDS", "drain_s", 0, 3_600, False),
]


@pytest.mark.parametrize(("name", "field", "low", "high", "whole"), BOUNDS, ids=[each[0] for each in BOUNDS])
def test_a_number_is_accepted_within_its_bounds_only(name: str, field: str, low: float, high: float, whole: bool) -> None:
    for value in (low, high):
        found = getattr(read(**{name: str(value)}), field)
        assert found == value
        assert isinstance(found, int) or not whole
    step = 1 if whole else 0.01
    for bad in (low - step, high + 1, -1, "x", "", "nan", "inf", "-inf", "1e999", "9" * 5_000, "0x10", "1,5", "12 s"):
        if bad == "":
            continue
        text = problem(**{name: str(bad)})
        assert text.startswith(f"{name} is {str(bad)!r}")
        assert f"{low:,}" in text
        assert f"{high:,}" in text
    if whole:
        assert "whole" in problem(**{name: f"{low + 1}.5"})
    else:
        assert getattr(read(**{name: "1.5"}), field) == 1.5


@pytest.mark.parametrize(
    ("name", "field", "choices"),
    [("LOG_LEVEL", "log_level", ["debug", "info", "warning", "error"]), ("LOG_FORMAT", "log_format", ["text", "json"])],
)
def test_a_choice_is_one_of_its_words(name: str, field: str, choices: list[str]) -> None:
    for choice in choices:
        assert getattr(read(**{name: choice.upper()}), field) == choice
    text = problem(**{name: "other"})
    assert text.startswith(name)
    assert all(choice in text for choice in choices)


def test_io_uring_is_on_by_default() -> None:
    assert read().io_uring
    assert read(IO_URING="on").io_uring
    assert not read(IO_URING="off").io_uring


@pytest.mark.parametrize(
    ("value", "shown"), [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False), ("false", False)]
)
def test_a_flag_is_yes_or_no(value: str, shown: bool) -> None:
    assert read(DEMO=value).demo is shown
    assert read(DEMO=value).serves_page is shown


# Names and keys


@pytest.mark.parametrize("value", ["a b", "a;b", "a=b", 'a"b', "ä", "a,b", "a/b"])
@pytest.mark.parametrize("name", ["JWT_COOKIE", "USER_COOKIE"])
def test_a_cookie_has_a_name_that_cookies_can_have(name: str, value: str) -> None:
    assert problem(**{name: value}).startswith(name)


def test_names_and_claims_are_kept_as_given() -> None:
    found = read(
        JWT_COOKIE="__Host-jwt", USER_COOKIE="uid", JWT_USER_CLAIM="uid", JWT_AUDIENCE="a, b", JWT_ISSUER="i", HOST="::1"
    )
    assert (found.jwt_cookie, found.user_cookie, found.jwt_user_claims) == ("__Host-jwt", "uid", ("uid",))
    assert (found.jwt_audience, found.jwt_issuer) == (("a", "b"), ("i",))
    assert found.local_url == "http://[::1]:3001"


def test_an_api_key_that_no_header_can_carry_is_a_problem() -> None:
    for key in ("מפתח-של-שרת-אחר-0123456789", "a-key-with-a-tab\t-0123456789", "clé-0123456789-0123456789"):
        assert problem(API_KEYS=f"a-good-key-0123456789,{key}").startswith("API_KEYS has a key")


# Any environment


@given(
    st.dictionaries(
        st.sampled_from(VARIABLES), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
    )
)
@example({"JWT_JWKS_URL": "https://[::1"})
@example({"JWT_PUBLIC_KEY": "-----BEGIN"})
@example({"CLIENT_URL": "http://["})
def test_any_environment_is_settings_or_a_list_of_problems(environ: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as empty:
        before = Path.cwd()
        os.chdir(empty)  # no value names a file here
        try:
            found: Settings | tuple[str, ...] = from_environ(environ)
        except ConfigError as error:
            found = error.problems
        finally:
            os.chdir(before)
    assert found
