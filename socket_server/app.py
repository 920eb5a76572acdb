"""The composition root: create_app(settings) builds all parts of a server and joins them."""

import secrets
from dataclasses import replace
from typing import Any

from flask import Flask

from socket_server import config, log
from socket_server.api import broadcast, connections, cors, errors, literal_paths, monitoring, user_paths
from socket_server.api import metrics as metrics_api
from socket_server.api import notifications as notifications_api
from socket_server.api.authorization import Authorization
from socket_server.auth.remote_keys import RemoteKeySet
from socket_server.auth.tokens import TokenVerifier
from socket_server.cli.name import command
from socket_server.config import Settings
from socket_server.config.weaknesses import remarks, weaknesses
from socket_server.events import ConnectionEvents
from socket_server.health import Health
from socket_server.inbox.inbox import Inbox, clock_us
from socket_server.metrics import families
from socket_server.metrics.collection import Collection
from socket_server.metrics.worker import Metrics
from socket_server.notifications import positions
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.recovery import Recovery
from socket_server.runtime.deadlines import Deadlines
from socket_server.services import Services, health_checks, join_cluster, make_inbox, make_ring, open_inbox
from socket_server.sessions import SessionManager
from socket_server.transport.engineio.address_limits import AddressLimits
from socket_server.transport.engineio.client_address import TrustedProxies
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.handshake import HandshakeReader
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.socketio.fanout import FanOut
from socket_server.transport.socketio.flask_extension import SocketIO
from socket_server.web import demo

_log = log.logger("Server")


def create_app(settings: Settings | None = None) -> Flask:
    """Return a server. settings: None: read from the environment. Raises ConfigError."""
    settings = with_development_secret(settings or config.load())
    log.configure(settings.log_level, settings.log_format, (*settings.jwt_secrets, *settings.api_keys))
    for text in (*weaknesses(settings), *remarks(settings)):
        _log.warning(text)

    gate = _gate(settings)
    sessions = SessionManager(settings.max_connections_per_user)
    metrics = _metrics(sessions)
    inbox = make_inbox(settings)
    head = open_inbox(inbox)
    registry, feed = join_cluster(settings, sessions, gate)
    # With a feed, the head is read from Redis before anything is stored.
    head_known = head is not None or feed is None
    start = clock_us() if head is None else head
    broadcaster = Broadcaster(sessions, inbox, start, FanOut(make_ring(settings)), certain=head_known)
    remote_keys = RemoteKeySet(settings.jwt_jwks_url) if settings.jwt_jwks_url else None
    authorization = Authorization(settings, gate.handshakes.address, gate.origins)
    endpoint = broadcast.Endpoint(settings, authorization, broadcaster, gate.origins, metrics)
    services = Services(
        settings=settings,
        sessions=sessions,
        broadcaster=broadcaster,
        inbox=inbox,
        registry=registry,
        feed=feed,
        remote_keys=remote_keys,
        deadlines=Deadlines(),
        gate=gate,
        metrics=Collection(metrics),
        judge_head=endpoint.judge_head,
    )
    app = _rest_api(services, authorization, endpoint, metrics)
    socketio = _socketio(app, services, endpoint)
    events = ConnectionEvents(
        settings,
        TokenVerifier(settings, remote_keys),
        sessions,
        registry,
        broadcaster,
        Recovery(inbox),
        services.deadlines,
        gate.addresses.failed,
        metrics,
    )
    events.register(socketio)
    registry.start(events.end)
    if remote_keys is not None:
        remote_keys.start()
    if feed is not None:
        feed.start(broadcaster, None if head_known else lambda: broadcaster.start_at(inbox.open()))
    _announce(settings, inbox)
    return app


def with_development_secret(settings: Settings) -> Settings:
    """Return settings with which tokens can be verified. In development without a key: a secret for this run."""
    if not settings.development or settings.has_jwt_key:
        return settings
    return replace(settings, jwt_secrets=(secrets.token_urlsafe(48),))


def _gate(settings: Settings) -> Gate:
    proxies = TrustedProxies(settings.trusted_proxies, settings.trust_unix_peer)
    return Gate(
        Origins(settings.client_origins, development=settings.development),
        settings.max_connections,
        HandshakeReader(proxies, (settings.jwt_cookie, settings.user_cookie)),
        AddressLimits(settings.max_connections_per_ip, settings.max_auth_failures_per_minute),
        settings.transports,
    )


def _metrics(sessions: SessionManager) -> Metrics:
    metrics = Metrics()
    metrics.gauge(families.CONNECTIONS, sessions.by_transport)
    metrics.gauge(families.USERS, lambda: {(): sessions.stats().connected_users})
    return metrics


def _rest_api(services: Services, authorization: Authorization, endpoint: broadcast.Endpoint, metrics: Metrics) -> Flask:
    """Return the Flask application with all routes."""
    settings, gate = services.settings, services.gate
    app = Flask("socket_server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["socket_server"] = services
    if settings.metrics != "off":
        metrics_api.count_requests(app, metrics)
        app.register_blueprint(metrics_api.blueprint(services.metrics, authorization, needs_key=settings.metrics == "key"))
    errors.register(app)
    cors.register(app, gate.origins)
    literal_paths.register(app)
    health = Health(health_checks(services.inbox, services.registry, services.feed, services.remote_keys))
    app.register_blueprint(
        monitoring.blueprint(services.sessions, services.registry, health, lambda: gate.draining, authorization)
    )
    user_paths.prepare(app)
    app.register_blueprint(notifications_api.blueprint(services.inbox, authorization))
    app.register_blueprint(connections.blueprint(services.registry, authorization))
    app.register_blueprint(broadcast.blueprint(endpoint))
    if settings.serves_page:
        app.register_blueprint(demo.blueprint(settings, next(iter(settings.jwt_secrets), "")))
    return app


def _socketio(app: Flask, services: Services, endpoint: broadcast.Endpoint) -> SocketIO:
    """Put the Socket.IO server and the direct routes in front of the Flask application."""
    settings, broadcaster = services.settings, services.broadcaster

    def pid_for(auth: Any) -> str:
        """Return the pid that a client sent back, or a new one that encodes the client's start offset."""
        position = positions.of_handshake(auth)
        start = None if position is None else position.within(broadcaster.head)
        return positions.pid_of(auth) or positions.new_pid(broadcaster.head if start is None else start)

    socketio = SocketIO()
    socketio.init_app(
        app,
        direct=endpoint.routes(),
        base_path=settings.base_path,
        gate=services.gate,
        limits=Limits(
            settings.max_message_bytes,
            settings.send_backlog_bytes,
            settings.auth_timeout_s,
            settings.max_events_per_second,
        ),
        deadlines=services.deadlines,
        pid_for=pid_for,
        ping_interval_s=settings.ping_interval_s,
        ping_timeout_s=settings.ping_timeout_s,
        upgraded=services.registry.moved,
        node=settings.node_name if settings.redis_url else "",
    )
    return socketio


def _announce(settings: Settings, inbox: Inbox) -> None:
    _log.info("notifications are kept in %s", inbox.place)
    _log.info("ready mode=%s url=%s max_connections=%d", settings.app_env, settings.local_url, settings.max_connections)
    if settings.development:
        _log.info("try it: open %s", settings.local_url)
        _log.info("a token for user 123: %s token 123", command())
        if not settings.api_keys and not settings.api_open:
            _log.info("no API_KEYS: /broadcast takes calls from this machine only")
