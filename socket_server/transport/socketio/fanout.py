"""Fan-out: write prepared packets to many connections, each connection its own.

Here: the writes of one moment. Not here: which packets wait for which connection (notifications/delivery_queue.py).
"""

from collections.abc import Sequence
from itertools import compress

from socket_server import log
from socket_server.runtime.ring import SIZE, Ring
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Socket.IO")

MAX_WRITES = SIZE  # connections in one call of write(): one system call, about a millisecond

# Below this number of sockets one system call each costs less than one io_uring call.
_MIN_RING_WRITES = 8


class PacketRun:
    """Packets that go to a connection one after the other. Immutable; all connections that get the same ones share it."""

    __slots__ = ("_frame", "_parts", "packets", "size")

    def __init__(self, packets: Sequence[Packet]) -> None:
        """size: bytes of the payloads."""
        self.packets = packets
        self.size = sum([len(packet.payload) for packet in packets])
        self._frame: bytes | None = None
        self._parts: tuple[PacketRun, PacketRun] | None = None

    @property
    def frame(self) -> bytes:
        """The WebSocket frames of all packets, joined once: one write, one system call."""
        if self._frame is None:
            frames = [packet.frame for packet in self.packets]
            self._frame = frames[0] if len(frames) == 1 else b"".join(frames)
        return self._frame

    def followed_by(self, packet: Packet) -> "PacketRun":
        """Return these packets and one more."""
        return PacketRun((*self.packets, packet))

    def split(self, max_bytes: int) -> "tuple[PacketRun, PacketRun]":
        """Return the first packets, at most max_bytes (but at least one), and the others."""
        if self._parts is None:
            size = count = 0
            for packet in self.packets[:-1]:
                size += len(packet.payload)
                if size > max_bytes and count:
                    break
                count += 1
            self._parts = PacketRun(self.packets[:count]), PacketRun(self.packets[count:])
        return self._parts


class FanOut:
    """Writes packets to connections. Never blocks and never yields to another greenlet, apart from log output."""

    def __init__(self, ring: Ring | None = None) -> None:
        """ring: writes to many sockets in one system call; None: one system call for each socket."""
        self._ring = ring

    def write(self, connections: Sequence[Connection], runs: Sequence[PacketRun]) -> list[Connection]:
        """Write to each connection its packets; return the connections that have ended and take nothing more.

        connections: at most MAX_WRITES, each named once. runs: one for each connection, in the same order.
        """
        if self._ring is not None and len(connections) >= _MIN_RING_WRITES:
            return _write_by_ring(self._ring, connections, runs)
        return _write_each(connections, runs)


def _write_by_ring(ring: Ring, connections: Sequence[Connection], runs: Sequence[PacketRun]) -> list[Connection]:
    """Write by one system call; return the connections that have ended."""
    # No other greenlet may run between here and the system call: it could close a socket, and the descriptor could be
    # another connection's by then.
    fds = [
        -1 if (websocket := connection.eio_socket.websocket) is None or connection.holds else websocket.writable_fd
        for connection in connections
    ]
    others: list[Connection] = []
    if -1 in fds:
        direct = [fd != -1 for fd in fds]
        indirect = [fd == -1 for fd in fds]
        others, runs_of_others = list(compress(connections, indirect)), list(compress(runs, indirect))
        connections, runs = list(compress(connections, direct)), list(compress(runs, direct))
        fds = list(compress(fds, direct))
    frames = [run.frame for run in runs]
    missed = []
    for position, taken in ring.send(frames, fds).items():
        connection = connections[position]
        try:
            goes_on = connection.eio_socket.websocket.wrote(frames[position], taken)
        except Exception:
            goes_on = _give_up(connection)
        if not goes_on:
            missed.append(connection)
    return missed + _write_each(others, runs_of_others) if others else missed


def _write_each(connections: Sequence[Connection], runs: Sequence[PacketRun]) -> list[Connection]:
    missed = []
    for connection, run in zip(connections, runs, strict=True):
        try:
            websocket = connection.eio_socket.websocket
            if websocket is None or connection.holds:
                taken = connection.deliver(list(run.packets))
            else:
                taken = websocket.send(run.frame)
        except Exception:
            taken = _give_up(connection)
        if not taken:
            missed.append(connection)
    return missed


def _give_up(connection: Connection) -> bool:
    """Close a connection whose write failed unexpectedly; the other connections get their packets all the same."""
    _log.exception("closed: unexpected error in a write, sid=%s", connection.sid)
    close(connection)
    return False


def close(connection: Connection) -> None:
    """Close a connection's transport after an error in the server: its client reconnects and recovers. Raises nothing."""
    try:
        connection.eio_socket.close(reason="server error")
    except Exception:
        _log.exception("unexpected error while closing sid=%s", connection.sid)
