"""gunicorn's settings, and what stops a start."""

import dataclasses
import os
import resource
import subprocess
import sys
import types
from typing import Any

import pytest
from gunicorn.config import Config

from socket_server import serve
from socket_server.config import Settings
from tests.servers import ROOT, environment

ALONE = Settings(max_connections=1)
TOGETHER = Settings(max_connections=1, redis_url="redis://localhost", jwt_secrets=("a-secret",))

PRODUCTION = {"JWT_SECRET": "a-secret-of-enough-bytes-for-every-hash-0123456789", "API_KEYS": "key-1"}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that is complete for production, and no .env file."""
    for name in list(os.environ):
        if name.startswith(("JWT_", "API_", "MAX_", "SSL_", "PING_", "LOG_")) or name in (
            "APP_ENV",
            "HOST",
            "PORT",
            "WEB_CONCURRENCY",
            "REDIS_URL",
            "TRANSPORTS",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ENV_FILE", "")
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def cfg(**changes: Any) -> Any:
    """Return gunicorn's final settings."""
    made = Config()
    good = {"bind": "127.0.0.1:0", "workers": 1, "worker_class": serve.WORKER, "graceful_timeout": 60}
    for name, value in {**good, **changes}.items():
        made.set(name, value)
    return made


def test_one_worker_listens_at_host_and_port(env: pytest.MonkeyPatch) -> None:
    env.setenv("HOST", "127.0.0.1")
    env.setenv("PORT", "4000")
    env.setenv("MAX_CONNECTIONS", "5000")
    env.setenv("DRAIN_SECONDS", "7.5")
    found = serve.gunicorn_settings()
    assert found["bind"] == ["127.0.0.1:4000"]
    assert (found["workers"], found["worker_class"]) == (1, serve.WORKER)
    assert found["worker_connections"] > 5_000
    assert found["graceful_timeout"] > 7.5
    assert found["certfile"] is None
    assert not problems_of(found)


def problems_of(found: dict[str, Any]) -> list[str]:
    return serve.problems_with(cfg(workers=found["workers"], worker_class=found["worker_class"]), ALONE)


def test_an_ipv6_address_is_bracketed(env: pytest.MonkeyPatch) -> None:
    env.setenv("HOST", "::1")
    assert serve.gunicorn_settings()["bind"] == ["[::1]:3001"]


def test_the_log_hides_the_configured_secrets(env: pytest.MonkeyPatch) -> None:
    line = serve.gunicorn_settings()["logconfig_dict"]["formatters"]["line"]
    assert set(line["secrets"]) == set(PRODUCTION.values())


def test_bad_settings_end_the_process_with_one_message(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("API_KEYS", "")
    env.setenv("PORT", "x")
    with pytest.raises(SystemExit) as stopped:
        serve.gunicorn_settings()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "API_KEYS" in message
    assert "PORT" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"workers": 4}, "workers"),
        ({"workers": 0}, "workers"),
        ({"worker_class": "sync"}, "sync"),
        ({"preload_app": True}, "--preload"),
    ],
)
def test_an_option_of_gunicorn_that_breaks_delivery_is_a_problem(changes: dict[str, Any], named: str) -> None:
    (text,) = serve.problems_with(cfg(**changes), ALONE)
    assert named in text


def test_with_redis_several_workers_are_allowed(env: pytest.MonkeyPatch) -> None:
    env.setenv("REDIS_URL", "redis://localhost:6379")
    env.setenv("WEB_CONCURRENCY", "4")
    assert serve.gunicorn_settings()["workers"] == 4
    assert serve.problems_with(cfg(workers=4), TOGETHER) == []


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (Settings(jwt_secrets=("a-secret",)), "set REDIS_URL"),
        (Settings(app_env="development", redis_url="redis://localhost"), "set JWT_SECRET"),
    ],
)
def test_several_workers_that_cannot_act_as_one_server_are_a_problem(settings: Settings, remedy: str) -> None:
    (text,) = serve.problems_with(cfg(workers=2), settings)
    assert "2 workers" in text
    assert remedy in text


def test_without_handover_several_workers_need_transports_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    (text,) = serve.problems_with(cfg(workers=2), TOGETHER)
    assert "TRANSPORTS=websocket" in text
    assert serve.problems_with(cfg(workers=2), dataclasses.replace(TOGETHER, transports=("websocket",))) == []


def test_all_problems_of_gunicorns_options_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    check = serve.on_starting(ALONE)
    arbiter = types.SimpleNamespace(cfg=cfg(workers=2, worker_class="sync", preload_app=True))
    with pytest.raises(SystemExit) as stopped:
        check(arbiter)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("  - ") == 3


def test_good_settings_start() -> None:
    arbiter = types.SimpleNamespace(cfg=cfg())
    serve.on_starting(ALONE)(arbiter)
    assert arbiter.shared_state is not None


def test_a_signal_does_not_start_a_second_worker_without_redis() -> None:
    arbiter = types.SimpleNamespace(_num_workers=2)
    check = serve.keep_workers(ALONE)
    check(arbiter, 2, 1)
    assert arbiter._num_workers == 1
    check(arbiter, 1, None)
    assert arbiter._num_workers == 1


def test_a_signal_starts_more_workers_with_redis() -> None:
    arbiter = types.SimpleNamespace(_num_workers=2)
    serve.keep_workers(TOGETHER)(arbiter, 2, 1)
    assert arbiter._num_workers == 2


def limited(soft: int, hard: int, wanted: int) -> tuple[str, int]:
    """Run raise_descriptor_limit() in a process with these limits; return its result and the soft limit afterwards."""
    script = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from socket_server import serve\n"
        f"print(serve.raise_descriptor_limit({wanted}))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    result, after = done.stdout.splitlines()
    return result, int(after)


def test_the_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    assert limited(256, 4_096, 2_000) == ("None", 2_000)


def test_a_limit_that_is_high_enough_is_left_alone() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert serve.raise_descriptor_limit(1) is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
