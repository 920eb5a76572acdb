"""Nodes within the test's process: the parts that make one of several, as app.py joins them, on a real Redis."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import pytest

from socket_server.cluster import redis_registry
from socket_server.cluster.feed import Feed
from socket_server.cluster.redis_registry import RedisRegistry
from socket_server.errors import ClusterUnavailable
from socket_server.inbox.inbox import Retention
from socket_server.inbox.redis.store import RedisInbox
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.sessions import SessionManager
from socket_server.transport.engineio.address_limits import AddressLimits
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.socketio.connection import Connection
from tests.clients.official import Network
from tests.redis_servers import RunningRedis
from tests.servers import wait_for
from tests.unit.fakes import RecordingSession, connection


class Node:
    """Sessions, registry, inbox, broadcaster and feed, and a network between them and Redis that can be cut."""

    def __init__(self, port: int, name: str, max_per_user: int = 20, max_per_address: int = 0) -> None:
        """port: Redis's. Begins with start()."""
        self.network = Network(port)
        url = f"redis://127.0.0.1:{self.network.port}/0"
        self.sessions = SessionManager(max_per_user)
        self.gate = Gate(Origins(), 10_000, addresses=AddressLimits(max_per_address))
        self.addresses = self.gate.addresses
        self.inbox = RedisInbox(url, Retention(), counts_connections=True)
        self.registry = RedisRegistry(url, self.sessions, name, max_per_user, self.addresses)
        self.addresses.on_failed, self.addresses.on_counted = self.registry.failed, self.registry.counted
        self.feed = Feed(url, name, self.registry)
        self.ended: list[tuple[str, str]] = []  # sid, and why

    def start(self, *, feed: bool = True) -> "Node":
        """Begin, and return once the others know of it. feed: False: it does not read the log."""
        self.broadcaster = Broadcaster(self.sessions, self.inbox, self.inbox.open())
        self.registry.start(self._end)
        if feed:
            self.feed.start(self.broadcaster, None)
        wait_for(lambda: self.in_touch, what="touch with the others")
        return self

    def start_blind(self, clock_us: int, *, feed: bool = True) -> None:
        """Begin without Redis. feed: False: what it would begin with, once Redis is there, does not come."""
        self.broadcaster = Broadcaster(self.sessions, self.inbox, clock_us, certain=False)
        self.registry.start(self._end)
        if feed:
            self.feed.start(self.broadcaster, lambda: self.broadcaster.start_at(self.inbox.open()))

    def _end(self, ended: Connection, why: str) -> None:
        self.sessions.remove(ended)
        self.ended.append((ended.sid, why))

    def connect(self, user: str, pid: str = "") -> tuple[Connection, RecordingSession]:
        """Register a connection, and return once all nodes count it."""
        made, session = connection()
        made.pid = pid or made.sid
        self.broadcaster.admit(user, made)
        self.registry.wait_until_visible(made)
        return made, session

    def say(self, *users: str) -> tuple[int, int, int]:
        """Broadcast; return how many users and connections were reached, and the offset."""
        report = self.broadcaster.send(Broadcast(users, len(users), b"{}", None, None, b""))
        return report.delivered_to, report.total_sockets, report.offset

    @property
    def in_touch(self) -> bool:
        try:
            self.registry.check()
            self.feed.check()
        except ClusterUnavailable:
            return False
        return True

    @property
    def counts(self) -> tuple[int, int]:
        """How many users and connections all nodes have, as this one says."""
        whole = self.registry.stats().whole
        return whole.connected_users, whole.total_connections

    @property
    def names(self) -> set[str]:
        """The nodes that this one knows of."""
        return {each.node for each in self.registry.stats().nodes}

    def stop(self) -> None:
        self.registry.stop()
        self.feed.stop()
        self.inbox.close()
        self.network.__exit__()


class Nodes(Protocol):
    def __call__(self, name: str = ..., *, max_per_user: int = ..., max_per_address: int = ...) -> Node: ...


@pytest.fixture
def make_node(redis_server: RunningRedis) -> Iterator[Nodes]:
    """Make nodes, which end with the test; they have not begun."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "a", *, max_per_user: int = 20, max_per_address: int = 0) -> Node:
            made = Node(redis_server.port, name, max_per_user, max_per_address)
            stack.callback(made.stop)
            return made

        yield make


@pytest.fixture
def brief_leases(monkeypatch: pytest.MonkeyPatch) -> float:
    """Nodes renew five times as often, and are forgotten five times as soon; return the lease in seconds."""
    monkeypatch.setattr(redis_registry, "LEASE_S", 1.8)
    monkeypatch.setattr(redis_registry, "RENEW_S", 0.4)
    monkeypatch.setattr(redis_registry, "_RETRY_S", 0.1)
    return 1.8
