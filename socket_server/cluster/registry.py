"""Who is online, over all nodes: the protocol, its values, and the registry of a server that is one node.

SessionManager knows this process's own connections, and stays the truth about them; a registry makes them known to the
other nodes, and theirs to this one. Delivery does not ask it: every node reads the same log (feed.py).
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from socket_server.sessions import SessionManager, Stats
from socket_server.transport.socketio.connection import Connection

# Why another node, or an operator, ends a connection.
REPLACED = "replaced"  # its own client came back elsewhere, before anybody noticed that this connection is dead
CROWDED_OUT = "crowded out"  # its user has too many, and it is the oldest
SIGNED_OUT = "signed out"

End = Callable[[Connection, str], object]  # ends a connection for one of these reasons; does not wait


def unique(node_name: str) -> str:
    """Return a name for this process that is no other's, before or after it."""
    return f"{node_name}-{secrets.token_hex(4)}"


def age_s(connection: Connection) -> float:
    """Return for how long a connection has been registered."""
    return time.monotonic() - connection.since


@dataclass(frozen=True, slots=True)
class Online:
    """One connection of a user, as an operator sees it. since: when it was authenticated, in seconds since 1970."""

    sid: str
    node: str
    since: float
    transport: str
    address: str
    user_agent: str

    def to_json(self) -> dict[str, Any]:
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
    """What one node has."""

    node: str
    stats: Stats


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """What all nodes have together, a user on two of them counted once; nodes is empty for a server that is one node."""

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
    """Who is online. Safe from any thread or greenlet. What asks other nodes raises ClusterUnavailable."""

    def start(self, end: End) -> None:
        """Begin to make connections known. end: ends one of this node's."""

    def settle(self, connection: Connection) -> None:
        """Wait until all nodes count this new connection; not for long where they cannot be told now."""

    def moved(self, connection: Connection) -> None:
        """A connection's transport has changed."""

    def connections_of(self, user_id: str) -> list[Online]:
        """Return a user's connections, oldest first."""

    def sign_out(self, user_id: str) -> int:
        """End all connections of a user, wherever they are; return how many that were."""

    def stats(self) -> ClusterStats:
        """Count users and connections."""

    def check(self) -> None:
        """Return where this node and the others know of each other now."""

    def stop(self) -> None:
        """Let go of everything; the others forget this node."""


class LocalRegistry:
    """The registry of a server that is one node: what SessionManager knows."""

    def __init__(self, sessions: SessionManager, node: str) -> None:
        self._sessions = sessions
        self._node = node
        self._end: End = lambda *_: None

    def start(self, end: End) -> None:
        self._end = end

    def settle(self, connection: Connection) -> None:
        """It is counted already."""

    def moved(self, connection: Connection) -> None:
        """Who asks for it is told what it is now."""

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
        """There is nobody else."""

    def stop(self) -> None:
        """There is nobody to tell."""
