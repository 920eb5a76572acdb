"""The parts of a server that outlive a request, and how each is built from the settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socket_server import log
from socket_server.api.broadcast import WsgiResponse
from socket_server.auth.remote_keys import RemoteKeySet
from socket_server.cluster.registry import LocalRegistry, Registry, unique
from socket_server.config import Settings
from socket_server.errors import InboxUnavailable
from socket_server.inbox import stores
from socket_server.inbox.inbox import Inbox, Retention
from socket_server.metrics.collection import Collection
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.redis_access.keys import Keys
from socket_server.runtime.deadlines import Deadlines
from socket_server.runtime.ring import Ring
from socket_server.sessions import SessionManager
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.socketio.server import on_gevent

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


def make_inbox(settings: Settings) -> Inbox:
    """Return the inbox of these settings, not opened."""
    retention = Retention(settings.inbox_ttl_s, settings.inbox_max_per_user)
    return stores.make(settings.inbox_url, retention, Keys(settings.redis_prefix), several_nodes=bool(settings.redis_url))


def open_inbox(inbox: Inbox) -> int | None:
    """Return the inbox's head; None if it cannot be opened.

    The server starts all the same: it serves connections, /health reports the problem, and the inbox is used when the
    problem is fixed.
    """
    try:
        return inbox.open()
    except InboxUnavailable as error:
        _log.error("%s", error)
        return None


def join_cluster(settings: Settings, sessions: SessionManager, gate: Gate) -> "tuple[Registry, Feed | None]":
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


def health_checks(
    inbox: Inbox, registry: Registry, feed: "Feed | None", remote_keys: RemoteKeySet | None
) -> dict[str, Callable[[], None]]:
    """Return the health check of each part outside this process, by its name in /health."""
    checks: dict[str, Callable[[], None]] = {"inbox": inbox.check}
    if feed is not None:
        checks |= {"registry": registry.check, "feed": feed.check}
    if remote_keys is not None:
        checks["keys"] = remote_keys.check
    return checks


def make_ring(settings: Settings) -> Ring | None:
    """Return the io_uring that writes to many sockets in one system call; None if it is off or the kernel refuses it."""
    if not settings.io_uring or not on_gevent():
        return None
    try:
        return Ring()
    except OSError as error:
        _log.info("no io_uring (%s): a broadcast takes a system call for each connection", error.strerror)
        return None
