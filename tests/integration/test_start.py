"""Starting a server, and what stops a start."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.integration.conftest import Opens
from tests.servers import (
    BIN,
    PRODUCTION,
    SECRET,
    children_of,
    finish,
    free_port,
    mint,
    running,
    start,
    wait_for,
)

GUNICORN = [str(BIN / "gunicorn"), "wsgi:app"]


def test_production_without_secrets_does_not_start_and_says_what_is_missing() -> None:
    status, output, errors = finish(GUNICORN, APP_ENV="production", PORT=free_port())
    message = output + errors
    assert status == 2
    assert message.count("cannot start") == 1
    assert "JWT_SECRET" in message
    assert "API_KEYS" in message
    assert "secrets.token_urlsafe" in message  # how to make one
    assert "Traceback" not in message


def test_gunicorn_without_app_env_is_production() -> None:
    status, _, errors = finish(GUNICORN, PORT=free_port())
    assert status == 2
    assert "JWT_SECRET is missing" in errors


BAD = {
    "PORT": "abc",
    "CLIENT_URL": "*",
    "JWT_PUBLIC_KEY": "nonsense",
    "JWT_JWKS_URL": "http://id.example.com/jwks",
    "JWT_LEEWAY": "-1",
    "JWT_COOKIE": "a cookie",
    "API_KEYS": "none,key",
    "PING_INTERVAL": "0",
    "PING_TIMEOUT": "nan",
    "AUTH_TIMEOUT": "soon",
    "MAX_CONNECTIONS": "1.5",
    "MAX_CONNECTIONS_PER_USER": "0",
    "MAX_MESSAGE_BYTES": "-5",
    "MAX_BODY_BYTES": "1e6",
    "DRAIN_SECONDS": "inf",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "SSL_CERT": "/nowhere/cert.pem",
    "TRUSTED_PROXIES": "everyone",
    "WEB_CONCURRENCY": "2",
}


def test_all_bad_values_are_listed_at_once() -> None:
    status, output, errors = finish(GUNICORN, APP_ENV="production", JWT_SECRET=SECRET, **BAD)
    message = output + errors
    assert status == 2
    assert message.count("cannot start") == 1
    assert "Traceback" not in message
    assert {name for name in BAD if f"- {name} " in message} == set(BAD)
    assert SECRET not in message


@pytest.mark.parametrize(
    ("setting", "value"),
    [("APP_ENV", "staging"), ("JWT_ALGORITHMS", "none"), ("JWT_ALGORITHMS", "RS256"), ("SSL_KEY", "/etc/hosts")],
)
def test_a_bad_value_stops_the_start(setting: str, value: str) -> None:
    status, output, errors = finish(GUNICORN, **PRODUCTION | {"PORT": free_port(), setting: value})
    assert status == 2
    assert f"- {setting} " in output + errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    ("arguments", "settings", "word"),
    [
        (["-w", "2"], {}, "set REDIS_URL"),
        ([], {"WEB_CONCURRENCY": "2"}, "WEB_CONCURRENCY"),
        ([], {"GUNICORN_CMD_ARGS": "--workers=3"}, "workers"),
        (["-k", "sync"], {}, "worker-class"),
        (["-k", "gevent"], {}, "worker-class"),
        (["--preload"], {}, "--preload"),
    ],
)
def test_an_option_that_would_break_delivery_is_refused(arguments: list[str], settings: dict[str, str], word: str) -> None:
    status, output, errors = finish([*GUNICORN, *arguments], **PRODUCTION, PORT=free_port(), **settings)
    message = output + errors
    assert status != 0
    assert message.count("cannot start") == 1
    assert word in message
    assert "Traceback" not in message


def test_a_bad_certificate_stops_the_start(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("nonsense")
    certificate = {"SSL_CERT": str(tmp_path / "cert.pem"), "SSL_KEY": str(tmp_path / "key.pem")}
    status, output, errors = finish(GUNICORN, timeout_s=5, **PRODUCTION, PORT=free_port(), **certificate)
    assert status != 0
    assert "SSL_CERT" in output + errors
    assert "Traceback" not in output + errors


def test_the_environment_wins_over_the_env_file(tmp_path: Path, opens: Opens) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text(
        f'JWT_SECRET="{SECRET}"\nAPI_KEYS=key-of-the-file-0123456789\nPORT=1\nCLIENT_URL=http://file.example.com\n'
    )
    port = free_port()
    settings = {"PORT": port, "HOST": "127.0.0.1", "DRAIN_SECONDS": 0, "CLIENT_URL": "http://environment.example.com"}
    server = start(tmp_path / "log", GUNICORN, port, ENV_FILE=env_file, **settings)
    try:
        allowed = server.get("/health", headers={"Origin": "http://environment.example.com"})
        assert "Access-Control-Allow-Origin" in allowed.headers
        assert opens(server).sign_in({"token": mint("ada")})["userId"] == "ada"  # from the file
        server.api_key = "key-of-the-file-0123456789"
        assert server.broadcast(["ada"], {}).json()["totalSockets"] == 1
    finally:
        assert server.stop() == 0
        server.session.close()


def test_sigttin_does_not_start_a_second_worker_without_redis(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: "the number of workers stays 1" in server.log(), what="the refusal")
        assert len(children_of(server.process.pid)) == 1
        assert server.get("/health").status_code == 200


def test_no_unix_socket_is_created_but_the_one_for_handovers(tmp_path: Path) -> None:
    with running(tmp_path, HOME=tmp_path, XDG_RUNTIME_DIR=tmp_path) as server:
        assert [path for path in tmp_path.rglob("*") if path.is_socket()] == []
        owned = set()
        for pid in (server.process.pid, *children_of(server.process.pid)):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    owned.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split()
            listening = int(fields[3], 16) & 0x10000
            assert not (listening and fields[6] in owned) or fields[7].startswith("@socket-server-"), line


def test_weak_settings_are_warnings_at_every_start(tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    weak = {
        "JWT_SECRET": f"short,{secret_file}",
        "API_KEYS": "short-key",
        "TRUSTED_PROXIES": "0.0.0.0/0",
        "CLIENT_URL": "null,'https://app.example.com'",
        "LOG_LEVEL": '"info"',
    }
    status, _, errors = finish(GUNICORN, **PRODUCTION | weak | {"PORT": free_port()})
    assert status == 2, "quotation marks make these values wrong"
    assert "LOG_LEVEL" in errors
    assert "CLIENT_URL" in errors
    del weak["LOG_LEVEL"]
    weak |= {"CLIENT_URL": "null", "NODE_NAME": "node", "JWT_AUDIENCE": "'web'"}
    with running(tmp_path, **weak) as server:
        log = server.log()
    for text in (
        "JWT_SECRET has a secret of fewer than 32 bytes",
        "JWT_SECRET is the path of a file",
        "API_KEYS has a key of fewer than 16 characters",
        "TRUSTED_PROXIES trusts every address",
        "JWT_AUDIENCE has quotation marks",
        "CLIENT_URL allows 'null'",
    ):
        assert log.count(text) == 1, text
        assert any(" warning " in line and text in line for line in log.splitlines())
    assert "short-key" not in log
