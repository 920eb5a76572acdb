"""The composition root: create_app(settings) builds all parts of a server and joins them."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flask import Flask

from socket_server import config, log
from socket_server.api import broadcast, connections, cors, errors, literal_paths, monitoring, user_paths
from socket_server.api import metrics as metrics_api
from socket_server.api import notifications as notifications_api
from socket_server.api.authorization import Authorization
from socket_server.api.broadcast import WsgiResponse
from socket_server.auth.remote_keys import RemoteKeySet
from socket_server.auth.tokens import TokenVerifier
from socket_server.cli.name import command
from socket_server.cluster.registry import LocalRegistry, Registry, unique
from socket_server.config import Settings
from socket_server.config.weaknesses import remarks, weaknesses
from socket_server.errors import InboxUnavailable
from socket_server.events import ConnectionEvents
from socket_server.health import Health
from socket_server.inbox import stores
from socket_server.inbox.inbox import Inbox, Retention, clock_us
from socket_server.metrics import families
from socket_server.metrics.collection import Collection
from socket_server.metrics.worker import Metrics
from socket_server.notifications import positions
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.recovery import Recovery
from socket_server.redis_access.keys import Keys
from socket_server.runtime.deadlines import Deadlines
from socket_server.runtime.ring import Ring
from socket_server.sessions import SessionManager
from socket_server.transport.engineio.address_limits import AddressLimits
from socket_server.transport.engineio.client_address import TrustedProxies
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.handshake import HandshakeReader
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.socketio.fanout import FanOut
from socket_server.transport.socketio.flask_extension import SocketIO
from socket_server.transport.socketio.server import on_gevent
from socket_server.web import demo

if TYPE_CHECKING:
    from socket_server.cluster.feed import Feed

_log = log.logger("Server")


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a server, for the worker and the tests: app.extensions["socket_server"]."""

    settings: Settings
    sessions: SessionManager
    broadcaster: Broadcaster
    inbox: Inbox
    registry: Registry
    feed: "Feed | None"  # None: this is the only node
    remote_keys: RemoteKeySet | None  # None: JWT_JWKS_URL is not set
    deadlines: Deadlines
    gate: Gate
    metrics: Collection
    judge_head: Callable[[dict[str, Any]], tuple[int, WsgiResponse | None]]

    def close(self) -> None:
        """Release what is outside this process, after all connections have ended."""
        self.registry.stop()
        if self.feed is not None:
            self.feed.stop()
        if self.remote_keys is not None:
            self.remote_keys.stop()
        self.inbox.close()


def create_app(settings: Settings | None = None) -> Flask:
    """Return a server. settings: None: read from the environment. Raises ConfigError."""
    settings = with_development_secret(settings or config.load())
    log.configure(settings.log_level, settings.log_format, (*settings.jwt_secrets, *settings.api_keys))
    for text in (*weaknesses(settings), *remarks(settings)):
        _log.warning(text)

    origins = Origins(settings.client_origins, development=settings.development)
    handshakes = HandshakeReader(
        TrustedProxies(settings.trusted_proxies, settings.trust_unix_peer), (settings.jwt_cookie, settings.user_cookie)
    )
    gate = Gate(
        origins,
        settings.max_connections,
        handshakes,
        AddressLimits(settings.max_connections_per_ip, settings.max_auth_failures_per_minute),
        settings.transports,
    )
    sessions = SessionManager(settings.max_connections_per_user)
    metrics = Metrics()
    metrics.gauge(families.CONNECTIONS, sessions.by_transport)
    metrics.gauge(families.USERS, lambda: {(): sessions.stats().connected_users})
    collection = Collection(metrics)
    app = Flask("socket_server", static_folder=None)
    inbox = make_inbox(settings)
    head = _open(inbox)
    registry, feed = _join(settings, sessions, gate)
    # With a feed, the head is read from Redis before anything is stored.
    known = head is not None or feed is None
    start = clock_us() if head is None else head
    broadcaster = Broadcaster(sessions, inbox, start, FanOut(_ring(settings)), certain=known)
    deadlines = Deadlines()
    remote_keys = RemoteKeySet(settings.jwt_jwks_url) if settings.jwt_jwks_url else None
    verifier = TokenVerifier(settings, remote_keys)

    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    authorization = Authorization(settings, handshakes.address, origins)
    endpoint = broadcast.Endpoint(settings, authorization, broadcaster, origins, metrics)
    app.extensions["socket_server"] = Services(
        settings=settings,
        sessions=sessions,
        broadcaster=broadcaster,
        inbox=inbox,
        registry=registry,
        feed=feed,
        remote_keys=remote_keys,
        deadlines=deadlines,
        gate=gate,
        metrics=collection,
        judge_head=endpoint.judge_head,
    )
    health = Health(_checks(inbox, registry, feed, remote_keys))
    if settings.metrics != "off":
        metrics_api.count_requests(app, metrics)
        app.register_blueprint(metrics_api.blueprint(collection, authorization, needs_key=settings.metrics == "key"))
    errors.register(app)
    cors.register(app, origins)
    literal_paths.register(app)
    app.register_blueprint(monitoring.blueprint(sessions, registry, health, lambda: gate.draining, authorization))
    user_paths.prepare(app)
    app.register_blueprint(notifications_api.blueprint(inbox, authorization))
    app.register_blueprint(connections.blueprint(registry, authorization))
    app.register_blueprint(broadcast.blueprint(endpoint))
    if settings.serves_page:
        app.register_blueprint(demo.blueprint(settings, next(iter(settings.jwt_secrets), "")))

    def pid_for(auth: Any) -> str:
        """Return the pid that a client sent back, or a new one that says where this client starts."""
        position = positions.of_handshake(auth)
        start = None if position is None else position.within(broadcaster.head)
        return positions.pid_of(auth) or positions.new_pid(broadcaster.head if start is None else start)

    socketio = SocketIO()
    socketio.init_app(
        app,
        direct=endpoint.routes(),
        base_path=settings.base_path,
        gate=gate,
        limits=Limits(
            settings.max_message_bytes,
            settings.send_backlog_bytes,
            settings.auth_timeout_s,
            settings.max_events_per_second,
        ),
        deadlines=deadlines,
        pid_for=pid_for,
        ping_interval_s=settings.ping_interval_s,
        ping_timeout_s=settings.ping_timeout_s,
        upgraded=registry.moved,
        node=settings.node_name if settings.redis_url else "",
    )
    events = ConnectionEvents(
        settings,
        verifier,
        sessions,
        registry,
        broadcaster,
        Recovery(inbox),
        deadlines,
        gate.addresses.failed,
        metrics,
    )
    events.register(socketio)
    registry.start(events.end)
    if remote_keys is not None:
        remote_keys.start()
    if feed is not None:
        feed.start(broadcaster, None if known else lambda: broadcaster.start_at(inbox.open()))
    _announce(settings, inbox)
    return app


def make_inbox(settings: Settings) -> Inbox:
    """Return the inbox of these settings, not opened."""
    retention = Retention(settings.inbox_ttl_s, settings.inbox_max_per_user)
    return stores.make(settings.inbox_url, retention, Keys(settings.redis_prefix), several_nodes=bool(settings.redis_url))


def _join(settings: Settings, sessions: SessionManager, gate: Gate) -> "tuple[Registry, Feed | None]":
    """Return the registry of this node and its feed (None if it is the only node), not started."""
    node = unique(settings.node_name)
    if not settings.redis_url:
        return LocalRegistry(sessions, node), None
    from socket_server.cluster.feed import Feed
    from socket_server.cluster.redis_registry import RedisRegistry

    keys = Keys(settings.redis_prefix)
    registry = RedisRegistry(settings.redis_url, sessions, node, settings.max_connections_per_user, gate.addresses, keys)
    gate.addresses.on_failed, gate.addresses.on_counted = registry.failed, registry.counted
    return registry, Feed(settings.redis_url, node, registry, keys)


def _checks(
    inbox: Inbox, registry: Registry, feed: "Feed | None", remote_keys: RemoteKeySet | None
) -> dict[str, Callable[[], None]]:
    """Return the health check of each part outside this process, by its name in /health."""
    checks: dict[str, Callable[[], None]] = {"inbox": inbox.check}
    if feed is not None:
        checks |= {"registry": registry.check, "feed": feed.check}
    if remote_keys is not None:
        checks["keys"] = remote_keys.check
    return checks


def _ring(settings: Settings) -> Ring | None:
    """Return the io_uring that writes to many sockets in one system call; None if it is off or the kernel refuses it."""
    if not settings.io_uring or not on_gevent():
        return None
    try:
        return Ring()
    except OSError as error:
        _log.info("no io_uring (%s): a broadcast takes a system call for each connection", error.strerror)
        return None


def _open(inbox: Inbox) -> int | None:
    """Return the inbox's head; None if it cannot be opened.

    The server starts all the same: it serves connections, /health reports the problem, and the inbox is used when the
    problem is fixed.
    """
    try:
        return inbox.open()
    except InboxUnavailable as error:
        _log.error("%s", error)
        return None


def with_development_secret(settings: Settings) -> Settings:
    """Return settings with which tokens can be verified. In development without a key: a secret for this run."""
    if not settings.development or settings.has_jwt_key:
        return settings
    return replace(settings, jwt_secrets=(secrets.token_urlsafe(48),))


def _announce(settings: Settings, inbox: Inbox) -> None:
    _log.info("notifications are kept in %s", inbox.place)
    _log.info("ready mode=%s url=%s max_connections=%d", settings.app_env, settings.local_url, settings.max_connections)
    if settings.development:
        _log.info("try it: open %s", settings.local_url)
        _log.info("a token for user 123: %s token 123", command())
        if not settings.api_keys and not settings.api_open:
            _log.info("no API_KEYS: /broadcast takes calls from this machine only")
