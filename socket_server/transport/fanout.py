"""Fan-out: prepared packets to many connections, written straight to each."""

from collections.abc import Sequence

from socket_server import log
from socket_server.transport.connection import Connection
from socket_server.transport.packets import Packet
from socket_server.transport.turns import Turn

_log = log.logger("Socket.IO")

_WRITES_PER_LOOK = 64  # at the clock

Delivery = tuple[Packet, Sequence[Connection]]


def fan_out(deliveries: Sequence[Delivery]) -> set[Connection]:
    """Write each packet to its connections, in this order on each of them; return those that have ended meanwhile.

    Where several packets go to one connection they are written at once. It gives way to other greenlets on its way; that
    no other fan-out comes between is its caller's business.
    """
    if len(deliveries) == 1:
        return _write_one(*deliveries[0])
    packets_of: dict[Connection, list[Packet]] = {}
    for packet, connections in deliveries:
        for connection in connections:
            packets_of.setdefault(connection, []).append(packet)
    return _write_many(packets_of)


def _write_one(packet: Packet, connections: Sequence[Connection]) -> set[Connection]:
    frame = packet.frame
    missed = set()
    turn = Turn()
    for start in range(0, len(connections), _WRITES_PER_LOOK):
        for connection in connections[start : start + _WRITES_PER_LOOK]:
            websocket = connection.engine.websocket
            direct = websocket is not None and not connection.holds
            try:
                taken = websocket.send(frame) if direct else connection.deliver([packet])
            except Exception:
                taken = _give_up(connection)
            if not taken:
                missed.add(connection)
        turn.give_way()
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
