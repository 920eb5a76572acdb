"""Fan-out: prepared packets to many connections, written straight to each."""

from collections.abc import Sequence

from socket_server.transport.connection import Connection
from socket_server.transport.packets import Packet
from socket_server.transport.turns import Turn

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
            if not (websocket.send(frame) if direct else connection.deliver([packet])):
                missed.add(connection)
        turn.give_way()
    return missed


def _write_many(packets_of: dict[Connection, list[Packet]]) -> set[Connection]:
    missed = set()
    turn = Turn()
    for connection, packets in packets_of.items():
        if not connection.deliver(packets):
            missed.add(connection)
        turn.give_way()
    return missed
