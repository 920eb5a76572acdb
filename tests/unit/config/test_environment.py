"""Settings: read once, every problem reported at once, nothing dangerous accepted."""

import datetime
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server import config
from socket_server.config import (
    ASYMMETRIC_ALGORITHMS,
    EC_ALGORITHMS,
    EDDSA_ALGORITHMS,
    HMAC_ALGORITHMS,
    RSA_ALGORITHMS,
    Settings,
    algorithms_of_pem,
    environment,
    from_environ,
)
from socket_server.config.weaknesses import remarks
from socket_server.errors import ConfigError
from tests.unit.keypairs import private_key, private_pem, public_pem

SECRET = "a-secret-of-enough-bytes-for-every-hash-0123456789"
PRODUCTION = {"JWT_SECRET": SECRET, "API_KEYS": "key-1"}
VARIABLES = [*environment.VARIABLES, "FLASK_RUN_FROM_CLI"]


def problems(**variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        from_environ({**PRODUCTION, **variables})
    return caught.value.problems


def problem(**variables: str) -> str:
    """Return the only problem there is."""
    (only,) = problems(**variables)
    return only


def read(**variables: str) -> Settings:
    return from_environ({**PRODUCTION, **variables})


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


def test_no_api_keys_at_all_has_to_be_said() -> None:
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


def test_one_message_lists_every_problem_by_name_with_its_mend() -> None:
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


def test_secrets_never_stand_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environ({"JWT_SECRET": SECRET, "API_KEYS": "key-1,none", "JWT_PUBLIC_KEY": private_pem("P-256"), "PORT": "x"})
    message = str(caught.value)
    assert SECRET not in message
    assert "key-1" not in message
    assert private_pem("P-256").splitlines()[1] not in message


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
def test_a_number_is_taken_within_its_bounds_and_refused_outside(
    name: str, field: str, low: float, high: float, whole: bool
) -> None:
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


def test_io_uring_is_used_unless_it_is_switched_off() -> None:
    assert read().io_uring
    assert read(IO_URING="on").io_uring
    assert not read(IO_URING="off").io_uring


@pytest.mark.parametrize(
    ("value", "shown"), [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False), ("false", False)]
)
def test_a_flag_is_yes_or_no(value: str, shown: bool) -> None:
    assert read(DEMO=value).demo is shown
    assert read(DEMO=value).serves_page is shown


# The inbox


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "sqlite:///inbox.db",
        "sqlite:///data/inbox.db",
        "sqlite:////var/lib/socket-server/inbox.db",
        "sqlite:////with%20space/inbox.db",
        "sqlite:////x/inbox.db?synchronous=full",
        "sqlite:////x/inbox.db?synchronous=NORMAL",
        "redis://localhost:6379/0",
        "rediss://user:password@redis.example:6380",
        "unix:///run/redis.sock",
        "redis+sentinel://one:26379,two:26379/main",
    ],
)
def test_an_inbox_is_memory_a_file_or_redis(url: str) -> None:
    assert read(INBOX_URL=url).inbox_url == url
    assert read(INBOX_URL=f"  {url} ").inbox_url == url


@pytest.mark.parametrize(
    "url",
    [
        "inbox.db",
        "/var/lib/inbox.db",
        "memory",
        "memory:",
        "memory://somewhere",
        "sqlite",
        "sqlite:",
        "sqlite:inbox.db",
        "sqlite://",
        "sqlite:///",
        "sqlite://inbox.db",
        "sqlite://host/inbox.db",
        "sqlite:///?synchronous=full",
        "sqlite:///inbox.db?synchronous=off",
        "sqlite:///inbox.db?mode=ro",
        "sqlite:///inbox.db?synchronous=full&x=1",
        "postgres://db/inbox",
        "http://localhost:6379",
        "://",
        "nonsense",
    ],
)
def test_what_is_no_inbox_is_a_problem(url: str) -> None:
    assert problem(INBOX_URL=url).startswith("INBOX_URL ")


def test_an_inbox_in_memory_is_warned_of() -> None:
    assert any("INBOX_URL=memory://" in text for text in remarks(read(INBOX_URL="memory://")))
    assert not any("INBOX_URL" in text for text in remarks(read(INBOX_URL="sqlite:///inbox.db")))


# Several workers


@pytest.mark.parametrize("value", ["0", "auto", "-1", "1.0", "1000000"])
def test_a_number_of_workers_is_a_number(value: str) -> None:
    assert problem(WEB_CONCURRENCY=value, REDIS_URL="redis://localhost").startswith("WEB_CONCURRENCY")


def test_several_workers_need_redis() -> None:
    assert "REDIS_URL" in problem(WEB_CONCURRENCY="4")
    assert read(WEB_CONCURRENCY="4", REDIS_URL="redis://localhost").workers == 4
    assert read().workers == 1


# Several nodes


def test_nodes_keep_what_users_miss_in_the_redis_that_joins_them() -> None:
    assert read(REDIS_URL="redis://one").inbox_url == "redis://one"
    assert read(REDIS_URL="redis://one", STATE_DIRECTORY="/data", INBOX_URL="").inbox_url == "redis://one"
    assert read(REDIS_URL="redis://one", INBOX_URL="redis://one").redis_url == "redis://one"
    for other in ("memory://", "sqlite:///inbox.db", "redis://two"):
        assert "REDIS_URL" in problem(REDIS_URL="redis://one", INBOX_URL=other)
    assert read().redis_url == ""


def test_without_a_place_for_the_inbox_it_is_in_the_directory_that_systemd_gives_to_the_service() -> None:
    assert read(STATE_DIRECTORY="/var/lib/it").inbox_url == "sqlite:////var/lib/it/inbox.db"
    assert read(STATE_DIRECTORY="/var/lib/it:/var/lib/other").inbox_url == "sqlite:////var/lib/it/inbox.db"
    assert read(STATE_DIRECTORY="/var/lib/it", INBOX_URL="memory://").inbox_url == "memory://"


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "memory://", "sqlite:///inbox.db"])
def test_what_is_no_redis_joins_no_nodes(url: str) -> None:
    assert problem(REDIS_URL=url).startswith("REDIS_URL")


def test_transports_are_those_of_engine_io() -> None:
    assert read().transports == ("polling", "websocket")
    assert read(TRANSPORTS="websocket").transports == ("websocket",)
    assert problem(TRANSPORTS="websocket,carrier-pigeon").startswith("TRANSPORTS")


def test_one_worker_is_what_there_is() -> None:
    assert read(WEB_CONCURRENCY="1") == read()


# Origins


def test_a_star_is_refused_in_production_even_among_others() -> None:
    for value in ("*", "https://a.example,*"):
        assert problem(CLIENT_URL=value).startswith("CLIENT_URL is '*'")
    assert from_environ({"APP_ENV": "development", "CLIENT_URL": "*"}).client_origins == ("*",)


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        (" https://a.example , http://b.example:8080 ", ("https://a.example", "http://b.example:8080")),
        ("HTTPS://A.Example/", ("https://a.example",)),
        ("https://a.example:443", ("https://a.example",)),
        ("http://a.example:80/", ("http://a.example",)),
        ("https://a.example:80", ("https://a.example:80",)),
        ("http://[::1]:5173", ("http://[::1]:5173",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(value: str, origins: tuple[str, ...]) -> None:
    assert read(CLIENT_URL=value).client_origins == origins


@pytest.mark.parametrize(
    "value",
    [
        "a.example",
        "https://",
        "https://a.example/path",
        "https://a.example?x",
        "https://u@a.example",
        "//a.example",
        "https://a b",
    ],
)
def test_what_is_no_origin_is_a_problem(value: str) -> None:
    assert problem(CLIENT_URL=value).startswith("CLIENT_URL has")


# Keys


KINDS = [
    ("RSA", RSA_ALGORITHMS),
    ("P-256", ("ES256",)),
    ("P-384", ("ES384",)),
    ("P-521", ("ES512",)),
    ("Ed25519", EDDSA_ALGORITHMS),
    ("Ed448", EDDSA_ALGORITHMS),
]


@pytest.mark.parametrize(("kind", "algorithms"), KINDS)
def test_a_public_key_is_given_as_a_pem_on_one_line_or_many_or_by_its_path(
    kind: str, algorithms: tuple[str, ...], tmp_path: Path
) -> None:
    pem = public_pem(kind)
    path = tmp_path / "public.pem"
    path.write_text(pem)
    for value in (pem, pem.strip(), pem.replace("\n", "\\n"), pem.replace("\n", "\r\n"), str(path)):
        found = from_environ({"API_KEYS": "k", "JWT_PUBLIC_KEY": value})
        assert found.jwt_algorithms == algorithms
        assert algorithms_of_pem(found.jwt_public_key) == algorithms


def test_an_rsa_key_in_its_older_form_is_taken() -> None:
    pem = private_key("RSA").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    assert from_environ({"API_KEYS": "k", "JWT_PUBLIC_KEY": pem}).jwt_algorithms == RSA_ALGORITHMS


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
@pytest.mark.parametrize("how", ["value", "escaped", "path"])
def test_a_private_key_is_refused_however_it_is_given(kind: str, how: str, tmp_path: Path) -> None:
    pem = private_pem(kind)
    path = tmp_path / "private.pem"
    path.write_text(pem)
    value = {"value": pem, "escaped": pem.replace("\n", "\\n"), "path": str(path)}[how]
    text = problem(JWT_PUBLIC_KEY=value)
    assert text.startswith("JWT_PUBLIC_KEY holds a private key")
    assert pem.splitlines()[1] not in text


@pytest.mark.parametrize("kind", ["X25519", "DSA", "P-224"])
def test_a_key_that_signs_no_tokens_is_refused(kind: str) -> None:
    assert problem(JWT_PUBLIC_KEY=public_pem(kind)).startswith("JWT_PUBLIC_KEY is")


@pytest.mark.parametrize(
    "value",
    [
        "/no/such/file.pem",
        "/",
        "x" * 5_000,
        "nonsense",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\\nשלום\\n-----END PUBLIC KEY-----",
    ],
)
def test_what_is_no_public_key_is_one_problem(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environ({"API_KEYS": "k", "JWT_PUBLIC_KEY": value, "JWT_ALGORITHMS": "RS256"})
    (text,) = caught.value.problems
    assert text.startswith("JWT_PUBLIC_KEY")


def test_a_file_that_is_no_key_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"", b"\xff\xfe", b"nonsense"):
        path.write_bytes(content)
        assert problem(JWT_PUBLIC_KEY=str(path)).startswith("JWT_PUBLIC_KEY")


@pytest.mark.parametrize(
    "url", ["https://idp.example/jwks", "http://localhost:8080/jwks", "http://127.0.0.1/x", "http://[::1]:1/x"]
)
def test_a_key_set_is_behind_https_or_on_this_machine(url: str) -> None:
    found = from_environ({"API_KEYS": "k", "JWT_JWKS_URL": url})
    assert found.jwt_jwks_url == url
    assert found.jwt_algorithms == ASYMMETRIC_ALGORITHMS


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/jwks",
        "ftp://idp.example",
        "idp.example",
        "https://",
        "file:///etc/passwd",
        "https:///x",
        "https://[::1",
        "https://[x]/",
    ],
)
def test_another_url_of_a_key_set_is_a_problem(url: str) -> None:
    assert problem(JWT_JWKS_URL=url).startswith("JWT_JWKS_URL")


def test_in_development_a_key_set_may_be_behind_plain_http() -> None:
    assert from_environ({"APP_ENV": "development", "JWT_JWKS_URL": "http://idp.example/jwks"}).jwt_jwks_url


# Algorithms


RSA_ONLY = {"JWT_SECRET": "", "JWT_PUBLIC_KEY": public_pem("RSA")}


@pytest.mark.parametrize("value", ["none", "None", "NONE", "HS256,none", "hs256", "XS256", "HS256 HS384", "RS256", "EdDSA"])
def test_an_algorithm_that_a_secret_does_not_verify_is_a_problem(value: str) -> None:
    assert problem(JWT_ALGORITHMS=value).startswith("JWT_ALGORITHMS")


@pytest.mark.parametrize("value", ["HS256", "RS256,HS256", "HS512", "none", "ES256", "EdDSA"])
def test_with_a_public_key_alone_hmac_and_other_kinds_are_a_problem(value: str) -> None:
    assert problem(**RSA_ONLY, JWT_ALGORITHMS=value).startswith("JWT_ALGORITHMS")


@pytest.mark.parametrize("value", ["HS256", "none", "RS256,HS512"])
def test_with_a_key_set_alone_hmac_is_a_problem(value: str) -> None:
    assert problem(JWT_SECRET="", JWT_JWKS_URL="https://idp.example/jwks", JWT_ALGORITHMS=value).startswith(
        "JWT_ALGORITHMS"
    )


def test_the_list_narrows_what_the_keys_can_verify() -> None:
    assert read(JWT_ALGORITHMS="HS512 , HS256").jwt_algorithms == ("HS512", "HS256")
    assert read(**RSA_ONLY, JWT_ALGORITHMS="PS256").jwt_algorithms == ("PS256",)
    both = {"JWT_PUBLIC_KEY": public_pem("P-256")}
    assert read(**both).jwt_algorithms == (*HMAC_ALGORITHMS, "ES256")
    assert read(**both, JWT_ALGORITHMS="HS256,ES256").jwt_algorithms == ("HS256", "ES256")
    assert read(JWT_ALGORITHMS=" , ").jwt_algorithms == HMAC_ALGORITHMS


def test_no_algorithm_of_any_key_is_none_or_hmac() -> None:
    assert not set(ASYMMETRIC_ALGORITHMS) & {"none", *HMAC_ALGORITHMS}
    assert set(EC_ALGORITHMS) < set(ASYMMETRIC_ALGORITHMS)


# TLS, cookies, claims, proxies


def certificate(folder: Path, passphrase: bytes = b"") -> tuple[str, str]:
    """Write a certificate for localhost and its key; return their paths."""
    key, name = private_key("P-256"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), start, start.replace(year=2099)
    )
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_certificate_and_key_come_together(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    assert problem(SSL_CERT=cert).startswith("SSL_CERT is set without SSL_KEY")
    assert problem(SSL_KEY=key).startswith("SSL_KEY is set without SSL_CERT")
    found = read(SSL_CERT=cert, SSL_KEY=key)
    assert (found.ssl_cert, found.ssl_key) == (cert, key)
    assert found.local_url.startswith("https://")


def test_a_certificate_and_a_key_that_do_not_fit_are_a_problem(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    other = tmp_path / "other.pem"
    for content in ("nonsense", "", private_pem("P-256", 1), private_pem("RSA")):
        other.write_text(content)
        assert problem(SSL_CERT=cert, SSL_KEY=str(other)).startswith("SSL_CERT")
        assert problem(SSL_CERT=str(other), SSL_KEY=key).startswith("SSL_CERT")
    assert problem(SSL_CERT=key, SSL_KEY=cert).startswith("SSL_CERT")


def test_a_key_with_a_passphrase_is_a_problem_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, b"a passphrase")
    assert "passphrase" in problem(SSL_CERT=cert, SSL_KEY=key)


def test_a_certificate_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    found = problems(SSL_CERT=str(tmp_path / "missing"), SSL_KEY=str(tmp_path))
    assert [text.split(" ")[0] for text in found] == ["SSL_CERT", "SSL_KEY"]


@pytest.mark.parametrize("value", ["a b", "a;b", "a=b", 'a"b', "ä", "a,b", "a/b"])
@pytest.mark.parametrize("name", ["JWT_COOKIE", "USER_COOKIE"])
def test_a_cookie_has_a_name_that_cookies_can_have(name: str, value: str) -> None:
    assert problem(**{name: value}).startswith(name)


def test_names_and_claims_are_taken_as_given() -> None:
    found = read(
        JWT_COOKIE="__Host-jwt", USER_COOKIE="uid", JWT_USER_CLAIM="uid", JWT_AUDIENCE="a, b", JWT_ISSUER="i", HOST="::1"
    )
    assert (found.jwt_cookie, found.user_cookie, found.jwt_user_claims) == ("__Host-jwt", "uid", ("uid",))
    assert (found.jwt_audience, found.jwt_issuer) == (("a", "b"), ("i",))
    assert found.local_url == "http://[::1]:3001"


def test_proxies_are_addresses_or_networks() -> None:
    assert [str(network) for network in read(TRUSTED_PROXIES="10.1.2.3/8, ::1").trusted_proxies] == [
        "10.0.0.0/8",
        "::1/128",
    ]
    found = problems(TRUSTED_PROXIES="nonsense, 10.0.0.0/33, 127.0.0.1")
    assert len(found) == 2
    assert all(text.startswith("TRUSTED_PROXIES has") for text in found)


def test_the_peer_of_a_unix_socket_is_a_proxy_if_it_is_named() -> None:
    found = read(TRUSTED_PROXIES="unix, 10.0.0.0/8")
    assert found.trust_unix_peer
    assert len(found.trusted_proxies) == 1
    assert not read().trust_unix_peer


def test_an_api_key_that_no_header_can_carry_is_a_problem() -> None:
    for key in ("מפתח-של-שרת-אחר-0123456789", "a-key-with-a-tab\t-0123456789", "clé-0123456789-0123456789"):
        assert problem(API_KEYS=f"a-good-key-0123456789,{key}").startswith("API_KEYS has a key")


@pytest.mark.parametrize("value", ["/push", "/push/", "/a/b-c_d.e~f", ""])
def test_a_base_path_has_no_slash_at_its_end(value: str) -> None:
    assert read(BASE_PATH=value).base_path == value.rstrip("/")
    assert read(BASE_PATH=value).local_url.endswith(value.rstrip("/"))


@pytest.mark.parametrize("value", ["push", "//push", "/a//b", "/../x", "/./x", "/a b", "/a%20b", "/a?b", "/é", "/.."])
def test_what_is_no_base_path_is_a_problem(value: str) -> None:
    assert problem(BASE_PATH=value).startswith("BASE_PATH is")


@pytest.mark.parametrize("value", ["127.0.0.1", "::", "::1", "0.0.0.0", "localhost"])
def test_a_host_is_an_address_or_a_name(value: str) -> None:
    assert read(HOST=value).host == value


@pytest.mark.parametrize(
    "value", ["[::1]", "127.0.0.1:3001", "http://localhost", "999.1.1.1", "a b", "no-such-host.invalid", "::1::", "é"]
)
def test_what_is_no_address_is_a_problem_that_names_host(value: str) -> None:
    assert problem(HOST=value).startswith("HOST is")


def test_no_problem_shows_more_than_one_line_of_a_value() -> None:
    for name in environment.VARIABLES:
        for text in problems(**{name: "a\nb\x1b[31m"}) if name in ("HOST", "PORT", "BASE_PATH", "NODE_NAME") else ():
            assert "\n" not in text
            assert "\x1b" not in text


# The file


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without any of our variables."""
    for name in [*VARIABLES, "ENV_FILE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_of_the_working_directory_is_read(place: Path) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\n# a comment\nAPI_KEYS=from-file\nPORT=4000\nHOST=\n")
    found = config.load()
    assert (found.jwt_secrets, found.api_keys, found.port, found.host) == ((SECRET,), ("from-file",), 4000, "0.0.0.0")


def test_the_environment_wins_over_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=from-file\nPORT=4000\n")
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("API_KEYS", "from-environment")
    found = config.load()
    assert (found.port, found.api_keys, found.jwt_secrets) == (5000, ("from-environment",), (SECRET,))


def test_the_file_does_not_change_the_environment(place: Path) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\n")
    config.load()
    assert "JWT_SECRET" not in os.environ


def test_another_file_may_be_named_and_none_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\nPORT=4000\n")
    (place / "other").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\nPORT=6000\n")
    monkeypatch.setenv("ENV_FILE", "other")
    assert config.load().port == 6000
    monkeypatch.setenv("ENV_FILE", "")
    with pytest.raises(ConfigError):
        config.load()


def test_nothing_in_the_file_is_expanded(place: Path) -> None:
    (place / ".env").write_text("JWT_SECRET='a$HOME-${HOME}-secret-of-enough-bytes-012345678901234567890'\nAPI_KEYS=k\n")
    assert config.load().jwt_secrets[0].startswith("a$HOME-${HOME}-secret")


def test_a_pem_in_the_file_may_have_its_lines_escaped(place: Path) -> None:
    pem = public_pem("P-256").replace("\n", "\\n")
    (place / ".env").write_text(f"JWT_PUBLIC_KEY={pem}\nAPI_KEYS=k\n")
    assert config.load().jwt_algorithms == ("ES256",)
    (place / ".env").write_text(f'JWT_PUBLIC_KEY="{pem}"\nAPI_KEYS=k\n')
    assert config.load().jwt_algorithms == ("ES256",)


def test_the_mode_that_a_command_suggests_gives_way_to_file_and_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.load(app_env="development").development
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\nAPP_ENV=production\n")
    assert not config.load(app_env="development").development
    monkeypatch.setenv("APP_ENV", "development")
    assert config.load().development


def test_an_empty_mode_in_the_environment_leaves_the_suggested_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Docker's env_file hands the empty lines of .env.example over as empty variables.
    monkeypatch.setenv("APP_ENV", "")
    assert config.load(app_env="development").development


# Whatever comes


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
        os.chdir(empty)  # where no name is a file's
        try:
            found: Settings | tuple[str, ...] = from_environ(environ)
        except ConfigError as error:
            found = error.problems
        finally:
            os.chdir(before)
    assert found
