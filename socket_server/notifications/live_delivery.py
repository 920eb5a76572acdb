"""Live delivery: which connections a notification goes to, and the offset up to which they have got everything.

Here: admitting connections, and enqueueing notifications for them in one order. Not here: storing (broadcaster.py), or when
packets are written (delivery_queue.py).
"""

import threading
from collections.abc import Callable, Sequence

from socket_server import log
from socket_server.inbox.inbox import Record
from socket_server.notifications.delivery_queue import Batch, DeliveryQueue
from socket_server.runtime.time_slice import TimeSlice
from socket_server.sessions import Audience, SessionManager
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Broadcast")


class LiveDelivery:
    """Enqueues notifications for the connections of their users. Callers enqueue in offset order (under the store lock)."""

    def __init__(self, sessions: SessionManager, queue: DeliveryQueue, head: int) -> None:
        self._sessions = sessions
        self._queue = queue
        self._head = head
        # Makes an audience and the head one state: a connection that is admitted at a head is in the audience of everything
        # after it, and of nothing before. No I/O under it.
        self._state_lock = threading.Lock()

    @property
    def head(self) -> int:
        """The newest offset that was written to, or is enqueued for, the connections of its users."""
        return self._head

    def admit(self, user_id: str, connection: Connection) -> tuple[int, Connection | None]:
        """Register a connection and return the head: the connection gets everything after it, and nothing up to it.

        Return also the user's oldest connection, if that had to be evicted.
        """
        with self._state_lock:
            return self._head, self._sessions.add(user_id, connection)

    def enqueue(self, batch: Batch, notifications: Sequence[tuple[int, bytes, Sequence[str]]]) -> list[Audience]:
        """Enqueue notifications (offset, JSON, user ids); return the audience of each."""
        with self._state_lock:
            return [self._enqueue(batch, *each) for each in notifications]

    def enqueue_records(self, batch: Batch, records: Sequence[Record], *, complete: bool) -> None:
        """Enqueue what other processes have stored.

        complete: False if notifications between the head and the records are missing: then all connections are closed
        first. Their clients reconnect, and recover from their inboxes.
        """
        with self._state_lock:
            left_behind = [] if complete else self._remove_all()
            for record in records:
                self._enqueue(batch, record.offset, record.notification, record.user_ids)
        _close_to_recover(left_behind)

    def send_at_head(self, connection: Connection, encode: Callable[[int], Packet]) -> None:
        """See Broadcaster.send_at_head()."""
        batch = Batch()
        with self._state_lock:
            self._queue.enqueue(batch, encode(self._head), [connection])
        self._queue.submit(batch, may_block=False)

    def restart_at(self, head: int) -> None:
        """Continue from another head. All connections are closed: their clients reconnect and recover."""
        self._queue.drain()
        with self._state_lock:
            left_behind = self._remove_all()
            self._head = head
        _close_to_recover(left_behind)

    def _enqueue(self, batch: Batch, offset: int, notification: bytes, user_ids: Sequence[str]) -> Audience:
        audience = self._sessions.connections_of(user_ids)
        if audience.connections:
            self._queue.enqueue(batch, packets.encode_notification(notification, offset), audience.connections)
        self._head = max(self._head, offset)
        return audience

    def _remove_all(self) -> list[Connection]:
        """Remove all connections from the sessions, so that they get nothing more."""
        connections = self._sessions.everyone()
        for connection in connections:
            self._sessions.remove(connection)
        return connections


def _close_to_recover(connections: Sequence[Connection]) -> None:
    if connections:
        _log.warning("the store was away for too long: closing %d connections, to recover", len(connections))
    time_slice = TimeSlice()
    for connection in connections:
        connection.eio_socket.close(reason="recovers from its inbox")
        time_slice.maybe_yield()
