"""What a publisher is told about a broadcast: how far it went, or why it was refused (docs/protocol.md, section 2)."""

from dataclasses import dataclass
from typing import Any

from socket_server.errors import RequestError
from socket_server.inbox.inbox import DeliveryCount, Repeat
from socket_server.notifications.notification import Broadcast
from socket_server.sessions import Audience
from socket_server.transport.socketio.connection import Connection


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an accepted broadcast.

    delivered_to: users with a connection; total_sockets: connections it goes to; requested_users: users asked for,
    duplicates included. Connections that were written to before the report count only if they took the notification.
    """

    delivered_to: int
    total_sockets: int
    requested_users: int
    offset: int

    def to_json(self) -> dict[str, Any]:
        """Return the body of a 200."""
        return {
            "success": True,
            "deliveredTo": self.delivered_to,
            "totalSockets": self.total_sockets,
            "requestedUsers": self.requested_users,
            "id": str(self.offset),
        }


Result = Report | RequestError


def delivered(audience: Audience, missed: frozenset[Connection], all_nodes: DeliveryCount | None = None) -> DeliveryCount:
    """Return how many users and connections a notification goes to, without the connections that did not take it.

    audience: the users and connections on this node. all_nodes: the counts over all nodes; None if there is only this one.
    """
    count = all_nodes or DeliveryCount(audience.users, len(audience.connections))
    lost = missed.intersection(audience.connections) if missed else missed
    if not lost:
        return count
    unreached_users = {connection.user_id for connection in lost} - {
        connection.user_id for connection in audience.connections if connection not in lost
    }
    return DeliveryCount(max(0, count.users - len(unreached_users)), max(0, count.connections - len(lost)))


def repeated(broadcast: Broadcast, repeat: Repeat, answer: bytes) -> Result:
    """Return the result of a broadcast whose idempotency key was used before. answer: the stored counts of the first."""
    if repeat.digest == broadcast.digest:
        count = DeliveryCount.decode(answer)
        return Report(count.users, count.connections, broadcast.requested_users, repeat.offset)
    return RequestError(
        422,
        "Idempotency-Key was used for another request",
        "the body must be the same, byte for byte; send a new key with a new notification",
    )


def key_in_use(key: str | None) -> RequestError:
    """Return the result of a broadcast whose idempotency key belongs to a request that is not answered yet."""
    return RequestError(
        409, "A request with this Idempotency-Key is under way", f"repeat it once that is answered; the key is {key!r}"
    )
