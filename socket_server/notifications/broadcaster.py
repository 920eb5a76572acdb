"""The way of a notification: accept -> give it its offset -> deliver -> report.

One broadcast at a time takes its offset and is written out, so that every connection sees offsets grow, whatever the
number of publishers.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from socket_server import log
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.offsets import Offsets
from socket_server.sessions import Audience, SessionManager
from socket_server.transport import packets
from socket_server.transport.connection import Connection
from socket_server.transport.fanout import fan_out
from socket_server.transport.packets import Packet

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
        return self.send_all([broadcast])[0]

    def send_all(self, broadcasts: Sequence[Broadcast]) -> list[Report]:
        """Deliver broadcasts in this order; a connection that several of them reach is written to once."""
        started = time.perf_counter()
        with self._order:
            sent = [self._prepare(broadcast) for broadcast in broadcasts]
            missed = fan_out([(packet, audience.connections) for _, packet, audience in sent])
        reports = []
        for broadcast, (offset, _, audience) in zip(broadcasts, sent, strict=True):
            users, sockets = reached(audience, missed)
            reports.append(Report(users, sockets, broadcast.requested_users, offset))
            _log.debug("id=%s users=%d delivered=%d sockets=%d", offset, broadcast.requested_users, users, sockets)
        _log.debug("broadcasts=%d ms=%.2f", len(broadcasts), (time.perf_counter() - started) * 1000)
        return reports

    def _prepare(self, broadcast: Broadcast) -> tuple[str, Packet, Audience]:
        offset = self._offsets.next()
        packet = packets.encode_notification(broadcast.notification, offset)
        return offset, packet, self._sessions.connections_of(broadcast.user_ids)


def reached(audience: Audience, missed: set[Connection]) -> tuple[int, int]:
    """Return how many users and connections of an audience were written to, given the connections that could not be."""
    lost = missed.intersection(audience.connections) if missed else missed
    if not lost:
        return audience.users, len(audience.connections)
    whole = {connection.user_id for connection in lost} - {
        connection.user_id for connection in audience.connections if connection not in lost
    }
    return audience.users - len(whole), len(audience.connections) - len(lost)
