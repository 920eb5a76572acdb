"""A connection: one Socket.IO socket of the default namespace, a phone or a tab, named by its `sid`."""

import threading
from typing import Any, Protocol

from socket_server.runtime.deadlines import Deadline
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.packets import Packet


class Session(Protocol):
    """What a connection needs of the Engine.IO session below it; the stock server's sockets have it too."""

    sid: str

    @property
    def websocket(self) -> Any:
        """What takes prepared frames directly; None: use send()."""

    @property
    def upgraded(self) -> bool: ...

    @property
    def closed(self) -> bool: ...

    @property
    def max_backlog(self) -> int:
        """SEND_BACKLOG_BYTES."""

    def send(self, pkt: Packet) -> bool: ...

    def close(self, *, reason: str) -> None:
        """Close the transport, so that the client comes back by itself."""

    def wait_until_sent(self) -> bool:
        """Wait until the client has taken all that was sent to it; return False where it has ended."""


# Between a delivery that finds a connection holding and the release of what it held; sending blocks nowhere.
_holding = threading.Lock()


class Connection:
    """What the rest of the server knows of a client. Small: there are tens of thousands.

    handshake is dropped once the CONNECT has been answered: it holds credentials.
    """

    __slots__ = (
        "_held",
        "_held_bytes",
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
        """pid: the name that its client keeps over all of its connections."""
        self.sid = sid
        self.pid = pid
        self.eio_socket = eio_socket
        self.handshake: Handshake | None = handshake
        self.address = handshake.address
        self.user_agent = handshake.user_agent
        self.ended = False
        self.deadline: Deadline | None = None  # what ends it if nothing else does: AUTH_TIMEOUT, then its token's expiry
        self.user_id: str | None = None  # since it was authenticated; the SessionManager's to set
        self.since = 0.0  # on the clock that only goes forward, the same
        self.rooms: set[Any] | None = None
        self.partial: tuple[packets.SocketPacket, list[bytes]] | None = None  # waits for its attachments
        self.position: Any = None  # where its client was when it left, as it says; until it is authenticated
        self._held: list[Packet] | None = None  # what must not overtake its replay; there only meanwhile
        self._held_bytes = 0

    @property
    def gone(self) -> bool:
        """Whether it has ended, or is about to: what arrived before its end is still being handled."""
        return self.ended or self.eio_socket.closed

    @property
    def transport(self) -> str:
        return "websocket" if self.eio_socket.upgraded else "polling"

    def send(self, packet: Packet) -> bool:
        """Write a prepared packet; never blocks on gevent. Return False where the connection has ended."""
        return self.eio_socket.send(packet)

    def send_all(self, prepared: list[Packet]) -> bool:
        """Write packets one after the other, on a WebSocket at once."""
        websocket = self.eio_socket.websocket
        if websocket is not None:
            return bool(websocket.send(b"".join([packet.frame for packet in prepared])))
        return all([self.eio_socket.send(packet) for packet in prepared])  # noqa: C419 - all are sent

    # While a connection recovers, what is broadcast to it waits in line

    @property
    def holds(self) -> bool:
        """Whether live packets wait."""
        return self._held is not None

    def hold(self) -> None:
        """From now on deliver() keeps packets back."""
        self._held = []

    def deliver(self, prepared: list[Packet]) -> bool:
        """Write live packets, or let them wait behind the replay. Return False where the connection has ended."""
        with _holding:
            if self._held is not None:
                self._held += prepared
                self._held_bytes += sum(len(packet.payload) for packet in prepared)
                if self._held_bytes <= self.eio_socket.max_backlog or len(self._held) == 1:
                    return not self.gone
                self._held.clear()
                self.eio_socket.close(reason="slow consumer")  # it comes back and recovers from where it got to
                return False
        return self.send_all(prepared)

    def release(self) -> None:
        """Write what has waited; from now on deliver() writes at once."""
        with _holding:
            held, self._held, self._held_bytes = self._held, None, 0
            if held:
                self.send_all(held)

    def emit(self, name: str, *arguments: Any) -> bool:
        """Send an event to this connection alone."""
        return self.send(packets.encode_event(name, *arguments))
