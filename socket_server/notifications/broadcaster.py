"""The way of a notification: accept -> give it its offset -> deliver -> report.

One broadcast at a time takes its offset and is written out, so that every connection sees offsets grow, whatever the
number of publishers.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

from socket_server import log
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.offsets import Offsets
from socket_server.sessions import Audience, SessionManager
from socket_server.transport import packets
from socket_server.transport.connection import Connection
from socket_server.transport.fanout import fan_out

_log = log.logger("Broadcast")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a broadcast: users with a connection, connections written to, users asked for, and its offset."""

    delivered_to: int
    total_sockets: int
    requested_users: int
    offset: str

    def to_json(self) -> dict[str, Any]:
        return {
            "success": True,
            "deliveredTo": self.delivered_to,
            "totalSockets": self.total_sockets,
            "requestedUsers": self.requested_users,
            "id": self.offset,
        }


class Broadcaster:
    """Delivers notifications to the connections of their users."""

    def __init__(self, sessions: SessionManager, offsets: Offsets) -> None:
        self._sessions = sessions
        self._offsets = offsets
        self._order = threading.Lock()

    @property
    def head(self) -> str:
        """The offset that a connection which starts now has reached."""
        return self._offsets.head

    def send(self, broadcast: Broadcast) -> Report:
        """Deliver a broadcast to whoever of its users is connected."""
        started = time.perf_counter()
        with self._order:
            offset = self._offsets.next()
            packet = packets.encode_notification(broadcast.notification, offset)
            audience = self._sessions.connections_of(broadcast.user_ids)
            missed = fan_out(packet, audience.connections)
        users, sockets = reached(audience, missed)
        _log.debug(
            "id=%s users=%d delivered=%d sockets=%d bytes=%d ms=%.2f",
            offset,
            broadcast.requested_users,
            users,
            sockets,
            len(broadcast.notification),
            (time.perf_counter() - started) * 1000,
        )
        return Report(users, sockets, broadcast.requested_users, offset)


def reached(audience: Audience, missed: list[Connection]) -> tuple[int, int]:
    """Return how many users and connections were written to, given the connections that could not be."""
    users = audience.users
    if missed:
        lost = set(missed)
        whole = {connection.user_id for connection in lost} - {
            connection.user_id for connection in audience.connections if connection not in lost
        }
        users -= len(whole)
    return users, len(audience.connections) - len(missed)
