"""create_app(settings): the only place where parts are built and joined."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flask import Flask

from socket_server import config, log
from socket_server.api import broadcast, cors, errors, monitoring
from socket_server.api.broadcast import WsgiResponse
from socket_server.auth.keys import RemoteKeySet
from socket_server.auth.tokens import TokenVerifier
from socket_server.config import Settings
from socket_server.events import ConnectionEvents
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.offsets import Offsets
from socket_server.sessions import SessionManager
from socket_server.transport.deadlines import Deadlines
from socket_server.transport.gate import Gate
from socket_server.transport.limits import Limits
from socket_server.transport.origins import Origins
from socket_server.transport.server import SocketIO
from socket_server.web import demo

_log = log.logger("Server")


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one server, for its doors (the worker, the tests); found at app.extensions["socket_server"]."""

    settings: Settings
    sessions: SessionManager
    broadcaster: Broadcaster
    deadlines: Deadlines
    gate: Gate
    judge_head: Callable[[dict[str, Any]], tuple[int, WsgiResponse | None]]


def create_app(settings: Settings | None = None) -> Flask:
    """Build a server. settings: read from the environment where None. Raises ConfigError."""
    settings = with_development_secret(settings or config.load())
    log.configure(settings.log_level, settings.log_format, (*settings.jwt_secrets, *settings.api_keys))
    for warning in settings.warnings():
        _log.warning(warning)

    origins = Origins(settings.client_origins, ("http", "https") if settings.development else ("https",) * settings.demo)
    gate = Gate(
        origins,
        settings.max_connections,
        settings.trusted_proxies,
        settings.max_connections_per_ip,
        settings.max_auth_failures_per_minute,
    )
    sessions = SessionManager(settings.max_connections_per_user)
    broadcaster = Broadcaster(sessions, Offsets())
    deadlines = Deadlines()
    verifier = TokenVerifier(settings, RemoteKeySet(settings.jwt_jwks_url) if settings.jwt_jwks_url else None)

    app = Flask("socket_server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    endpoint = broadcast.Endpoint(settings, broadcaster, origins)
    app.extensions["socket_server"] = Services(settings, sessions, broadcaster, deadlines, gate, endpoint.judge_head)
    errors.register(app)
    cors.register(app, origins)
    app.register_blueprint(monitoring.blueprint(sessions, lambda: gate.draining))
    app.register_blueprint(broadcast.blueprint(endpoint))
    if settings.serves_page:
        app.register_blueprint(demo.blueprint(settings, next(iter(settings.jwt_secrets), "")))

    socketio = SocketIO()
    socketio.init_app(
        app,
        direct=endpoint.routes(),
        gate=gate,
        limits=Limits(
            settings.max_message_bytes,
            settings.send_backlog_bytes,
            settings.auth_timeout_s,
            settings.max_events_per_second,
        ),
        deadlines=deadlines,
        ping_interval_s=settings.ping_interval_s,
        ping_timeout_s=settings.ping_timeout_s,
    )
    ConnectionEvents(settings, verifier, sessions, broadcaster, deadlines, gate.failed).register(socketio)
    _announce(settings)
    return app


def with_development_secret(settings: Settings) -> Settings:
    """Return settings that can verify tokens: in development without a key, by a secret made for this run."""
    if not settings.development or settings.jwt_secrets or settings.jwt_public_key or settings.jwt_jwks_url:
        return settings
    return replace(settings, jwt_secrets=(secrets.token_urlsafe(48),))


def _announce(settings: Settings) -> None:
    _log.info("ready mode=%s url=%s max_connections=%d", settings.app_env, settings.local_url, settings.max_connections)
    if settings.development:
        _log.info("try it: open %s", settings.local_url)
        _log.info("a token for user 123: socket-server token 123")
        if not settings.api_keys and not settings.api_open:
            _log.info("no API_KEYS: /broadcast takes calls from this machine only")
