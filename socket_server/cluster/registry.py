"""The registry: which connections each user has, over all nodes. Its protocol and values, and the registry of one node.

SessionManager knows the connections of this process. A registry reports them to the other nodes, and returns theirs.
Delivery does not use it: every node reads the same log (feed.py).
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from socket_server.sessions import SessionManager, Stats
from socket_server.transport.socketio.connection import Connection

# Why a registry ends a connection. Nodes send these texts to each other.
REPLACED = "replaced"  # half-open: its client has reconnected, to any node
CROWDED_OUT = "crowded out"  # its user has too many connections, and it is the oldest
SIGNED_OUT = "signed out"

End = Callable[[Connection, str], object]  # ends a connection for one of these reasons, without blocking


def unique(node_name: str) -> str:
    """Return a name for this process that no other process has or had."""
    return f"{node_name}-{secrets.token_hex(4)}"


def age_s(connection: Connection) -> float:
    """Return how long ago a connection was authenticated, in seconds."""
    return time.monotonic() - connection.since


@dataclass(frozen=True, slots=True)
class Online:
    """A connection of a user. since: when it was authenticated, Unix seconds."""

    sid: str
    node: str
    since: float
    transport: str
    address: str
    user_agent: str

    def to_json(self) -> dict[str, Any]:
        """Return an element of GET /users/<id>/connections."""
        return {
            "sid": self.sid,
            "node": self.node,
            "since": self.since,
            "transport": self.transport,
            "address": self.address,
            "userAgent": self.user_agent,
        }


@dataclass(frozen=True, slots=True)
class NodeStats:
    """The numbers of one node."""

    node: str
    stats: Stats


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """The numbers of all nodes together. A user on two nodes counts once. nodes: empty for a server of one node."""

    whole: Stats
    nodes: tuple[NodeStats, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the body of GET /stats."""
        body = self.whole.to_json()
        if self.nodes:
            body["nodes"] = [
                {
                    "node": each.node,
                    "connectedUsers": each.stats.connected_users,
                    "totalConnections": each.stats.total_connections,
                }
                for each in self.nodes
            ]
        return body


class Registry(Protocol):
    """Connections over all nodes. Thread-safe. Calls that need other nodes raise ClusterUnavailable."""

    def start(self, end: End) -> None:
        """Begin to report connections. end: ends a connection of this node."""

    def wait_until_visible(self, connection: Connection) -> None:
        """Block until all nodes count this new connection, for a bounded time."""

    def moved(self, connection: Connection) -> None:
        """Report that a connection has another transport now."""

    def connections_of(self, user_id: str) -> list[Online]:
        """Return a user's connections on all nodes, oldest first."""

    def sign_out(self, user_id: str) -> int:
        """End a user's connections on all nodes; return their number."""

    def stats(self) -> ClusterStats:
        """Return the numbers of users and connections."""

    def check(self) -> None:
        """Return if this node and the others know of each other now."""

    def stop(self) -> None:
        """Release all resources. The other nodes forget this node."""


class LocalRegistry:
    """The registry of a server that is one node."""

    def __init__(self, sessions: SessionManager, node: str) -> None:
        self._sessions = sessions
        self._node = node
        self._end: End = lambda *_: None

    def start(self, end: End) -> None:
        self._end = end

    def wait_until_visible(self, connection: Connection) -> None:
        """Nothing to wait for: it is counted already."""

    def moved(self, connection: Connection) -> None:
        """Nothing to report: the transport is read when it is asked for."""

    def connections_of(self, user_id: str) -> list[Online]:
        return [
            Online(each.sid, self._node, time.time() - age_s(each), each.transport, each.address, each.user_agent)
            for each in self._sessions.connections_of([user_id]).connections
        ]

    def sign_out(self, user_id: str) -> int:
        connections = self._sessions.connections_of([user_id]).connections
        for each in connections:
            self._end(each, SIGNED_OUT)
        return len(connections)

    def stats(self) -> ClusterStats:
        return ClusterStats(self._sessions.stats())

    def check(self) -> None:
        """Nothing to check: there are no other nodes."""

    def stop(self) -> None:
        """Nothing to release."""
