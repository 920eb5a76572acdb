"""A connection: one Socket.IO socket of the default namespace, such as a phone or a browser tab, named by its `sid`."""

import threading
from typing import TYPE_CHECKING, Any, Protocol

from socket_server.runtime.deadlines import Deadline
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.packets import Packet

if TYPE_CHECKING:
    from socket_server.transport.socketio.partial_packet import PartialPacket


class Session(Protocol):
    """The Engine.IO socket under a connection: an EioSocket, or under `flask run` a ThreadedSession."""

    sid: str

    @property
    def websocket(self) -> Any:
        """The WebSocket that prepared frames are written to directly; None: use send()."""

    @property
    def upgraded(self) -> bool:
        """Whether the transport is a WebSocket."""

    @property
    def closed(self) -> bool: ...

    @property
    def max_backlog(self) -> int:
        """SEND_BACKLOG_BYTES."""

    def send(self, pkt: Packet) -> bool:
        """Write or queue a packet; return False if the socket has ended."""

    def close(self, *, reason: str) -> None:
        """Close the transport. The official client reconnects by itself after that."""

    def wait_until_sent(self) -> bool:
        """Block until the client has taken everything that was sent; return False if the socket has ended."""


# Held between the check whether a connection holds packets back and their release. Sending under it never blocks.
_hold_lock = threading.Lock()


class Connection:
    """What the rest of the server knows of a client. Kept small, since a process has tens of thousands."""

    __slots__ = (
        "_held",
        "_held_bytes",
        "ack_id",
        "address",
        "deadline",
        "eio_socket",
        "ended",
        "handshake",
        "partial",
        "pid",
        "position",
        "rooms",
        "sid",
        "since",
        "user_agent",
        "user_id",
    )

    def __init__(self, sid: str, eio_socket: Session, handshake: Handshake, pid: str = "") -> None:
        """pid: the id that the official client keeps over all of its connections (connection state recovery)."""
        self.sid = sid
        self.pid = pid
        self.eio_socket = eio_socket
        self.handshake: Handshake | None = handshake  # None once CONNECT has been handled: it holds credentials
        self.address = handshake.address
        self.user_agent = handshake.user_agent
        self.ended = False
        self.deadline: Deadline | None = None  # of AUTH_TIMEOUT, then of the token's expiry
        self.user_id: str | None = None  # set by the SessionManager when the connection is authenticated
        self.since = 0.0  # when that was, on the monotonic clock
        self.rooms: set[Any] | None = None
        self.partial: PartialPacket | None = None
        self.ack_id: int | None = None  # of the event being handled, if its client waits for an acknowledgement
        self.position: Any = None  # the client's own claim of what it last received; until it is authenticated
        self._held: list[Packet] | None = None  # live packets that wait for the replay; None: nothing is held back
        self._held_bytes = 0

    @property
    def gone(self) -> bool:
        """Whether the connection has ended or is closing. Packets that arrived before may still be being handled."""
        return self.ended or self.eio_socket.closed

    @property
    def transport(self) -> str:
        return "websocket" if self.eio_socket.upgraded else "polling"

    def send(self, packet: Packet) -> bool:
        """Write a packet; never blocks on gevent. Return False if the connection has ended."""
        return self.eio_socket.send(packet)

    def send_all(self, prepared: list[Packet]) -> bool:
        """Write packets in order, on a WebSocket in one system call. Return False if the connection has ended."""
        websocket = self.eio_socket.websocket
        if websocket is not None:
            return bool(websocket.send(b"".join([packet.frame for packet in prepared])))
        return all([self.eio_socket.send(packet) for packet in prepared])  # noqa: C419 - all are sent

    def emit(self, name: str, *arguments: Any) -> bool:
        """Send an event to this connection alone."""
        return self.send(packets.encode_event(name, *arguments))

    # During a replay, live packets are held back

    @property
    def holds(self) -> bool:
        """Whether live packets are held back."""
        return self._held is not None

    def hold(self) -> None:
        """Hold back what deliver() is given, until release()."""
        self._held = []

    def deliver(self, prepared: list[Packet]) -> bool:
        """Write live packets, or hold them back. Return False if the connection has ended.

        A connection that holds more than SEND_BACKLOG_BYTES is closed. Its client reconnects and recovers.
        """
        with _hold_lock:
            if self._held is not None:
                self._held += prepared
                self._held_bytes += sum(len(packet.payload) for packet in prepared)
                if self._held_bytes <= self.eio_socket.max_backlog or len(self._held) == 1:
                    return not self.gone
                self._held.clear()
                self.eio_socket.close(reason="slow consumer")
                return False
        return self.send_all(prepared)

    def release(self) -> None:
        """Write what was held back. From now on deliver() writes at once."""
        with _hold_lock:
            held, self._held, self._held_bytes = self._held, None, 0
            if held:
                self.send_all(held)
