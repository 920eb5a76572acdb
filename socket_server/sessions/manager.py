"""The session registry: the connections of each user in this worker, and the user of each connection. Both are O(1).

Here: adding, finding, removing connections. Not here: delivery (notifications/) and authentication (events/).
Thread-safe, for threads and greenlets: each method takes the lock once and calls nothing while it holds the lock.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from socket_server import log
from socket_server.transport.socketio.connection import Connection

_log = log.logger("SessionManager")


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of users and connections. Only authenticated connections count."""

    connected_users: int
    total_connections: int

    def to_json(self) -> dict[str, Any]:
        """Return the body of GET /stats. The average is not rounded."""
        average = self.total_connections / self.connected_users if self.connected_users else 0
        return {
            "connectedUsers": self.connected_users,
            "totalConnections": self.total_connections,
            "averageConnectionsPerUser": average,
        }


@dataclass(frozen=True, slots=True)
class Audience:
    """The recipients of a broadcast. users: how many of its users are connected; connections: all of their connections."""

    users: int
    connections: list[Connection]


class SessionManager:
    """The registry of authenticated connections."""

    def __init__(self, max_per_user: int) -> None:
        """max_per_user: connections of one user; above it the oldest one is evicted."""
        self._max_per_user = max_per_user
        self._lock = threading.Lock()
        self._users: dict[str, dict[str, Connection]] = {}  # user id -> sid -> connection, oldest first
        self._connections = 0
        self._changed: Callable[[Connection], object] = lambda _: None

    def watch(self, changed: Callable[[Connection], object]) -> None:
        """Call `changed` with each connection that is added or removed from now on."""
        self._changed = changed

    def add(self, user_id: str, connection: Connection) -> Connection | None:
        """Register a connection of a user.

        Return the evicted connection, or None: it is no longer registered, and the caller must disconnect it.
        Adding a connection twice changes nothing. Raises ValueError if the connection belongs to another user.
        """
        evicted = None
        with self._lock:
            if connection.user_id == user_id:
                return None
            if connection.user_id is not None:
                raise ValueError("this connection belongs to another user")
            connection.user_id = user_id
            connection.since = time.monotonic()
            connections = self._users.setdefault(user_id, {})
            connections[connection.sid] = connection
            if len(connections) > self._max_per_user:
                evicted = connections.pop(next(iter(connections)))
            else:
                self._connections += 1
            count = len(connections)
        self._changed(connection)
        if evicted is not None:
            self._changed(evicted)
        _log.info("added sid=%s user=%s connections=%d", connection.sid, user_id, count)
        return evicted

    def remove(self, connection: Connection) -> str | None:
        """Forget a connection. Return its user, or None if it was not registered."""
        with self._lock:
            user_id = connection.user_id
            connections = self._users.get(user_id, {}) if user_id is not None else {}
            if user_id is None or connections.pop(connection.sid, None) is None:
                return None
            self._connections -= 1
            count = len(connections)
            if not connections:
                del self._users[user_id]
        self._changed(connection)
        _log.info("removed sid=%s user=%s connections=%d", connection.sid, user_id, count)
        return user_id

    def has(self, connection: Connection) -> bool:
        """Return whether a connection is registered."""
        with self._lock:
            return self._users.get(connection.user_id or "", {}).get(connection.sid) is connection

    def user_of(self, connection: Connection) -> str | None:
        """Return the present or former user of a connection; None if it was never registered."""
        return connection.user_id

    def connections_of(self, user_ids: Iterable[str]) -> Audience:
        """Return the connections of these users. user_ids: without duplicates."""
        users = self._users
        with self._lock:
            present = [users[user_id] for user_id in user_ids if user_id in users]
            return Audience(len(present), [each for connections in present for each in connections.values()])

    def everyone(self) -> list[Connection]:
        """Return all connections."""
        with self._lock:
            return [each for connections in self._users.values() for each in connections.values()]

    def by_transport(self) -> dict[tuple[str, ...], float]:
        """Return the number of connections by their transport."""
        counts: dict[tuple[str, ...], float] = {("polling",): 0.0, ("websocket",): 0.0}
        for connection in self.everyone():
            counts[connection.transport,] += 1
        return counts

    def stats(self) -> Stats:
        """Return the numbers of users and connections."""
        with self._lock:
            return Stats(len(self._users), self._connections)
