"""A connection: one Socket.IO socket of the default namespace, a phone or a tab, named by its `sid`."""

from typing import Any, Protocol

from socket_server.transport import packets
from socket_server.transport.deadlines import Deadline
from socket_server.transport.handshake import Handshake
from socket_server.transport.packets import Packet


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

    def send(self, pkt: Packet) -> bool: ...


class Connection:
    """What the rest of the server knows of a client. Small: there are tens of thousands.

    handshake is dropped once the CONNECT has been answered: it holds credentials.
    """

    __slots__ = (
        "address",
        "attributable",
        "deadline",
        "ended",
        "engine",
        "handshake",
        "partial",
        "rooms",
        "sid",
        "user_agent",
        "user_id",
    )

    def __init__(self, sid: str, engine: Session, handshake: Handshake) -> None:
        self.sid = sid
        self.engine = engine
        self.handshake: Handshake | None = handshake
        self.address = handshake.address
        self.attributable = handshake.attributable
        self.user_agent = handshake.user_agent
        self.ended = False
        self.deadline: Deadline | None = None  # what ends it if nothing else does: AUTH_TIMEOUT, then its token's expiry
        self.user_id: str | None = None  # since it was authenticated; the SessionManager's to set
        self.rooms: set[Any] | None = None
        self.partial: tuple[packets.SocketPacket, list[bytes]] | None = None  # waits for its attachments

    @property
    def gone(self) -> bool:
        """Whether it has ended, or is about to: what arrived before its end is still being handled."""
        return self.ended or self.engine.closed

    @property
    def transport(self) -> str:
        return "websocket" if self.engine.upgraded else "polling"

    def send(self, packet: Packet) -> bool:
        """Write a prepared packet; never blocks on gevent. Return False where the connection has ended."""
        return self.engine.send(packet)

    def emit(self, name: str, *arguments: Any) -> bool:
        """Send an event to this connection alone."""
        return self.send(packets.encode_event(name, *arguments))
