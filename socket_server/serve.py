"""Serving with gunicorn: its settings, computed from those of the server, and the checks before a start."""

import math
import os
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click
from gunicorn.app.base import BaseApplication

from socket_server import config, log
from socket_server.config import Settings
from socket_server.config.stores import NEEDS_REDIS
from socket_server.errors import ConfigError
from socket_server.workers import binding, master, options

if TYPE_CHECKING:
    from flask import Flask

_log = log.logger("Server")

# File descriptors of a worker beyond one for each connection: for waiting HTTP connections (at most 1,000), upgrades in
# progress, the reserve for back ends (runtime/descriptors.py), listeners, logs and libraries.
SPARE_DESCRIPTORS = 4_096
# Greenlets of a worker beyond one for each connection (a poll needs one): for API calls and waiting HTTP connections.
SPARE_GREENLETS = 1_000

# gunicorn kills a worker that has not ended this long after DRAIN_SECONDS.
SPARE_DRAIN_S = 5

WORKER = "socket_server.workers.worker.Worker"


def gunicorn_settings() -> dict[str, Any]:
    """Return the settings of gunicorn by name. Bad settings of the server end the process: one message, exit status 2."""
    try:
        settings = config.load()
    except ConfigError as error:
        stop(str(error))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": [f"{host}:{settings.port}"],
        "worker_class": WORKER,
        "workers": settings.workers,
        "worker_connections": settings.max_connections + SPARE_GREENLETS,
        "graceful_timeout": math.ceil(settings.drain_s) + SPARE_DRAIN_S,
        "timeout": 30,
        "keepalive": 75,
        "certfile": settings.ssl_cert or None,
        "keyfile": settings.ssl_key or None,
        "control_socket_disable": True,
        "logconfig_dict": log.dict_config(
            settings.log_level, settings.log_format, (*settings.jwt_secrets, *settings.api_keys)
        ),
        "on_starting": on_starting(settings),
        "nworkers_changed": keep_workers(settings),
        "on_reload": master.on_reload,
        "pre_fork": master.pre_fork,
        "pre_exec": master.pre_exec,
        "child_exit": master.child_exit,
    }


def stop(message: str) -> NoReturn:
    """End the process with exit status 2 and one message."""
    print(message, file=sys.stderr)  # noqa: T201 - logging is not configured yet
    raise SystemExit(2)


def on_starting(settings: Settings) -> Callable[[Any], None]:
    """Return gunicorn's hook that runs once in the master, before it listens. It ends a start that cannot succeed."""

    def check(arbiter: Any) -> None:
        problems = problems_with(arbiter.cfg, settings) or binding.problems_with(arbiter.cfg, settings.host, settings.port)
        if problems:
            stop(str(ConfigError(problems)))
        if "FORWARDED_ALLOW_IPS" in os.environ:  # some platforms set it for every Python application
            _log.warning("FORWARDED_ALLOW_IPS has no effect: TRUSTED_PROXIES says whose X-Forwarded-For is believed")
        warning = raise_descriptor_limit(settings.max_connections + SPARE_DESCRIPTORS)
        if warning:
            _log.warning(warning)
        master.start(arbiter)

    return check


def problems_with(cfg: Any, settings: Settings) -> list[str]:
    """Return what is wrong with gunicorn's final settings, command line included, each with its remedy."""
    problems = options.problems_with(cfg)
    alone = why_one_worker(settings)
    if cfg.workers < 1:
        problems.append("gunicorn was told to start no worker: leave out -w/--workers, or give 1 or more")
    if cfg.workers > 1 and alone:
        problems.append(f"gunicorn was told to start {cfg.workers} workers (-w/--workers, WEB_CONCURRENCY): {alone}")
    if cfg.worker_class_str != WORKER:
        problems.append(f"gunicorn was told to use the worker {cfg.worker_class_str}: leave out -k/--worker-class")
    if cfg.preload_app:
        problems.append("gunicorn was told to preload the app, before gevent is set up in the worker: leave out --preload")
    if cfg.graceful_timeout < settings.drain_s + SPARE_DRAIN_S:
        problems.append(
            f"gunicorn was told to kill workers after {cfg.graceful_timeout} s (--graceful-timeout), before they have "
            f"drained: leave it out, or give DRAIN_SECONDS ({settings.drain_s:g}) and {SPARE_DRAIN_S} or more"
        )
    return problems


def why_one_worker(settings: Settings) -> str:
    """Return why these settings allow only one worker, and the remedy; "" if they allow several."""
    if not settings.redis_url:
        return f"{NEEDS_REDIS}; set REDIS_URL, or run one"
    if not settings.has_jwt_key:
        return "each would make a JWT secret of its own and refuse the others' tokens; set JWT_SECRET, or run one"
    if sys.platform != "linux" and "polling" in settings.transports:
        return "they can pass long-polling clients to each other on Linux only; set TRANSPORTS=websocket, or run one"
    return ""


def keep_workers(settings: Settings) -> Callable[[Any, int, int | None], None]:
    """Return gunicorn's hook for SIGTTIN and SIGTTOU. It keeps one worker if the settings allow only one."""
    reason = why_one_worker(settings)

    def check(arbiter: Any, new_value: int, old_value: int | None) -> None:
        if reason and old_value is not None and new_value != 1:
            _log.warning("the number of workers stays 1: of several, %s", reason)
            arbiter._num_workers = 1

    return check


def raise_descriptor_limit(wanted: int) -> str | None:
    """Raise this process's limit of open files to `wanted`, or as far as allowed; return a warning if that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    for new_soft, new_hard in ((wanted, max(hard, wanted)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (new_soft, new_hard))
            break
        except (ValueError, OSError):
            continue
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    return (
        f"this process may open {soft} files, fewer than MAX_CONNECTIONS needs ({wanted}): raise the limit "
        f"(ulimit -n {wanted}, LimitNOFILE= in systemd, ulimits in Docker) or lower MAX_CONNECTIONS"
    )


class _BadSettings(click.ClickException):
    exit_code = 2


def application() -> "Flask":
    """Return the WSGI application.

    Raises ConfigError; under `flask run` a ClickException, which Flask shows without a traceback.
    """
    from socket_server.app import create_app  # in the worker, after gevent has patched the standard library

    try:
        return create_app()
    except ConfigError as error:
        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
            raise _BadSettings(str(error)) from None
        raise


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn without its own command line, for `socket-server run` in any directory."""

    def load_config(self) -> None:
        for name, value in gunicorn_settings().items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return application()
