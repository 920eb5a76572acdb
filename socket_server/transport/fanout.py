"""Fan-out: one prepared packet to many connections, written straight to each."""

import time
from collections.abc import Sequence

from socket_server.transport.connection import Connection
from socket_server.transport.packets import Packet

# Others run at least this often during a long fan-out: no heartbeat, request or other client waits much longer.
TURN_S = 0.005
_LOOK_AT_CLOCK_EVERY = 64


def fan_out(packet: Packet, users: Sequence[Sequence[Connection]]) -> tuple[int, int]:
    """Write a packet to every connection of every user; return how many users and connections it was written to.

    Under gevent it gives way to other greenlets every TURN_S; the order on each connection is its callers' business.
    """
    reached = written = 0
    turn_ends = time.perf_counter() + TURN_S
    for index, connections in enumerate(users):
        before = written
        for connection in connections:
            if connection.engine.send(packet) is not False:
                written += 1
        if written > before:
            reached += 1
        if index % _LOOK_AT_CLOCK_EVERY == 0 and time.perf_counter() > turn_ends:
            time.sleep(0)  # gevent's, where it runs: lets the hub serve everyone else
            turn_ends = time.perf_counter() + TURN_S
    return reached, written
