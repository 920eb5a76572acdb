"""Who is connected to this process right now: user -> connections and connection -> user, both O(1).

Here: adding, finding, removing. Not here: delivery (notifications) or authentication (events). Thread-safe, for threads and
greenlets: each method takes the lock once and calls nobody while holding it.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from socket_server import log
from socket_server.transport.connection import Connection

_log = log.logger("SessionManager")


@dataclass(frozen=True, slots=True)
class Stats:
    """How many are connected. Only authenticated connections count."""

    connected_users: int
    total_connections: int

    def to_json(self) -> dict[str, Any]:
        """Return the body of GET /stats; the average is not rounded."""
        average = self.total_connections / self.connected_users if self.connected_users else 0
        return {
            "connectedUsers": self.connected_users,
            "totalConnections": self.total_connections,
            "averageConnectionsPerUser": average,
        }


class SessionManager:
    """The registry of authenticated connections."""

    def __init__(self, max_per_user: int) -> None:
        """max_per_user: above it the oldest connection of the user gives way to the newest."""
        self._max_per_user = max_per_user
        self._lock = threading.Lock()
        self._users: dict[str, dict[str, Connection]] = {}  # user id -> sid -> connection, oldest first
        self._user_of: dict[str, str] = {}  # sid -> user id

    def add(self, user_id: str, connection: Connection) -> Connection | None:
        """Register a connection as this user's.

        Return the user's oldest connection where it had to give way: it is no longer registered, and the caller
        disconnects it. Adding a connection twice changes nothing; adding it for another user is a ValueError.
        """
        evicted = None
        with self._lock:
            known = self._user_of.setdefault(connection.sid, user_id)
            if known != user_id:
                raise ValueError("this connection is another user's")
            connections = self._users.setdefault(user_id, {})
            connections[connection.sid] = connection
            if len(connections) > self._max_per_user:
                sid = next(iter(connections))
                evicted = connections.pop(sid)
                del self._user_of[sid]
            count = len(connections)
        _log.info("added sid=%s user=%s connections=%d", connection.sid, user_id, count)
        return evicted

    def remove(self, connection: Connection) -> str | None:
        """Forget a connection; return whose it was, None where it was nobody's."""
        with self._lock:
            user_id = self._user_of.pop(connection.sid, None)
            if user_id is None:
                return None
            connections = self._users[user_id]
            del connections[connection.sid]
            count = len(connections)
            if not connections:
                del self._users[user_id]
        _log.info("removed sid=%s user=%s connections=%d", connection.sid, user_id, count)
        return user_id

    def user_of(self, connection: Connection) -> str | None:
        """Return whose connection this is; None where it is not registered."""
        return self._user_of.get(connection.sid)

    def connections_of(self, user_ids: Iterable[str]) -> list[list[Connection]]:
        """Return the connections of each of these users who has any; a user named twice counts once."""
        users = self._users
        with self._lock:
            return [list(users[user_id].values()) for user_id in dict.fromkeys(user_ids) if user_id in users]

    def stats(self) -> Stats:
        """Count users and connections."""
        with self._lock:
            return Stats(len(self._users), len(self._user_of))
