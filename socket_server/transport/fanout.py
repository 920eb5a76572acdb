"""Fan-out: prepared packets to many connections, written straight to each."""

from collections.abc import Iterable, Sequence

from socket_server import log
from socket_server.transport.connection import Connection
from socket_server.transport.packets import Packet
from socket_server.transport.ring import SIZE, Ring
from socket_server.transport.turns import Turn

_log = log.logger("Socket.IO")

# Between two looks at the clock so much is written, to so many: about a millisecond.
_BYTES_PER_LOOK = 262_144
_WRITES_PER_LOOK = SIZE

# From so many sockets on one system call for all of them costs less than one for each.
_WORTH_A_RING = 8

Delivery = tuple[Packet, Sequence[Connection]]


class FanOut:
    """Writes packets to connections.

    It gives way to other greenlets on its way; that no other fan-out comes between is its caller's business.
    """

    def __init__(self, ring: Ring | None = None) -> None:
        """ring: writes to many sockets at once; None: each is written to by itself."""
        self._ring = ring

    def __call__(self, deliveries: Sequence[Delivery]) -> set[Connection]:
        """Write each packet to its connections, in this order on each of them; return those that have ended meanwhile.

        A packet goes to a connection once. Where several packets go to one connection they are written at once.
        """
        if len(deliveries) == 1:
            return self._write_one(*deliveries[0])
        packets_of: dict[Connection, list[Packet]] = {}
        for packet, connections in deliveries:
            for connection in connections:
                packets_of.setdefault(connection, []).append(packet)
        return _write_many(packets_of)

    def _write_one(self, packet: Packet, connections: Sequence[Connection]) -> set[Connection]:
        at_once = max(1, min(_WRITES_PER_LOOK, _BYTES_PER_LOOK // len(packet.frame)))
        missed: set[Connection] = set()
        turn = Turn()
        for start in range(0, len(connections), at_once):
            some = connections[start : start + at_once]
            if self._ring is not None and len(some) >= _WORTH_A_RING:
                missed.update(_write_together(self._ring, packet, some))
            else:
                missed.update(_write_each(packet, some))
            turn.give_way()
        return missed


def _write_together(ring: Ring, packet: Packet, connections: Iterable[Connection]) -> list[Connection]:
    """Write one packet by one system call; return those that have ended."""
    frame = packet.frame
    direct: list[Connection] = []
    fds: list[int] = []
    others: list[Connection] = []
    # From here to the system call nothing else may run: it could close a socket, and its number become another's.
    for connection in connections:
        websocket = connection.engine.websocket
        fd = -1 if websocket is None or connection.holds else websocket.writable_fd
        if fd < 0:
            others.append(connection)
        else:
            direct.append(connection)
            fds.append(fd)
    short = ring.send(frame, fds)
    missed = []
    for position, taken in short.items():
        connection = direct[position]
        try:
            goes_on = connection.engine.websocket.wrote(frame, taken)
        except Exception:
            goes_on = _give_up(connection)
        if not goes_on:
            missed.append(connection)
    return missed + _write_each(packet, others)


def _write_each(packet: Packet, connections: Iterable[Connection]) -> list[Connection]:
    frame = packet.frame
    missed = []
    for connection in connections:
        try:
            websocket = connection.engine.websocket
            direct = websocket is not None and not connection.holds
            taken = websocket.send(frame) if direct else connection.deliver([packet])
        except Exception:
            taken = _give_up(connection)
        if not taken:
            missed.append(connection)
    return missed


def _write_many(packets_of: dict[Connection, list[Packet]]) -> set[Connection]:
    missed = set()
    turn = Turn()
    for connection, packets in packets_of.items():
        try:
            taken = connection.deliver(packets)
        except Exception:
            taken = _give_up(connection)
        if not taken:
            missed.add(connection)
        turn.give_way()
    return missed


def _give_up(connection: Connection) -> bool:
    """End a connection that cannot be written to: nobody else may miss anything for it."""
    _log.exception("closed: unexpected error in a write, sid=%s", connection.sid)
    connection.engine.close(reason="server error")
    return False
