"""Fan-out: one prepared packet to many connections, written straight to each."""

import time
from collections.abc import Sequence

from socket_server.transport.connection import Connection
from socket_server.transport.packets import Packet

# Others run at least this often during a long fan-out: no heartbeat, request or other client waits much longer.
TURN_S = 0.005
_WRITES_PER_LOOK = 64  # at the clock


def fan_out(packet: Packet, connections: Sequence[Connection]) -> list[Connection]:
    """Write a packet to every connection; return those that have ended meanwhile and could not be written to.

    Under gevent it gives way to other greenlets every TURN_S; the order on each connection is its callers' business.
    """
    frame = packet.frame
    missed = []
    turn_ends = time.perf_counter() + TURN_S
    for start in range(0, len(connections), _WRITES_PER_LOOK):
        for connection in connections[start : start + _WRITES_PER_LOOK]:
            websocket = connection.engine.websocket
            if not (websocket.send(frame) if websocket is not None else connection.engine.send(packet)):
                missed.append(connection)
        if time.perf_counter() > turn_ends:
            time.sleep(0)  # gevent's, where it runs: lets the hub serve everyone else
            turn_ends = time.perf_counter() + TURN_S
    return missed
