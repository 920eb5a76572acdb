"""Fan-out: prepared packets to many connections, written straight to each."""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from socket_server import log
from socket_server.runtime.ring import SIZE, Ring
from socket_server.runtime.time_slice import TimeSlice
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Socket.IO")

# Between two looks at the clock so much is written, to so many: about a millisecond.
_BYTES_PER_LOOK = 262_144
_WRITES_PER_LOOK = SIZE

# From so many sockets on one system call for all of them costs less than one for each, also where each gets its own frame.
_WORTH_A_RING = 8

Delivery = tuple[Packet, Sequence[Connection]]


class _Writes(NamedTuple):
    """What goes out between two looks at the clock: to each connection its packets, as one frame."""

    connections: Sequence[Connection]
    packets: Sequence[list[Packet]]
    frames: Sequence[bytes]

    def where(self, chosen: Sequence[bool]) -> "_Writes":
        """Return some of them."""
        return _Writes(
            list(compress(self.connections, chosen)),
            list(compress(self.packets, chosen)),
            list(compress(self.frames, chosen)),
        )


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
        missed: set[Connection] = set()
        time_slice = TimeSlice()
        for writes in _parted(_by_audience(deliveries), time_slice):
            if self._ring is not None and len(writes.connections) >= _WORTH_A_RING:
                missed.update(_write_together(self._ring, writes))
            else:
                missed.update(_write_each(writes))
            time_slice.maybe_yield()
        return missed


_Group = tuple[list[Packet], Sequence[Connection]]  # all of the packets go to all of the connections, in this order


def _by_audience(deliveries: Sequence[Delivery]) -> list[_Group]:
    """Bring together the packets that follow each other to the same connections."""
    groups: list[_Group] = []
    for packet, connections in deliveries:
        if groups and groups[-1][1] == connections:
            groups[-1][0].append(packet)
        else:
            groups.append(([packet], connections))
    return groups


def _parted(groups: list[_Group], time_slice: TimeSlice) -> Iterator[_Writes]:
    """Bring together what goes to the same connection, and part the writes."""
    if len(groups) == 1:
        yield from _one(*groups[0])
    elif groups:
        yield from _several(groups, time_slice)


def _one(packets: list[Packet], connections: Sequence[Connection]) -> Iterator[_Writes]:
    frame = _joined(packets)
    at_once = max(1, min(_WRITES_PER_LOOK, _BYTES_PER_LOOK // len(frame)))
    for start in range(0, len(connections), at_once):
        some = connections[start : start + at_once]
        yield _Writes(some, [packets] * len(some), [frame] * len(some))


def _several(groups: list[_Group], time_slice: TimeSlice) -> Iterator[_Writes]:
    packets_of: dict[Connection, list[Packet]] = {}
    for packets, connections in groups:
        for connection in connections:
            packets_of.setdefault(connection, []).extend(packets)
        time_slice.maybe_yield()
    connections, lists = list(packets_of), list(packets_of.values())
    frames: list[bytes] = []
    start = size = 0
    last: list[Packet] = []
    frame = b""
    for at, packets in enumerate(lists):
        if packets != last:  # a user's devices, or the audience of a batch, get the same
            last, frame = packets, _joined(packets)
        if frames and (size + len(frame) > _BYTES_PER_LOOK or len(frames) == _WRITES_PER_LOOK):
            yield _Writes(connections[start:at], lists[start:at], frames)
            start, frames, size = at, [], 0
        frames.append(frame)
        size += len(frame)
    yield _Writes(connections[start:], lists[start:], frames)


def _joined(packets: list[Packet]) -> bytes:
    return packets[0].frame if len(packets) == 1 else b"".join([packet.frame for packet in packets])


def _write_together(ring: Ring, writes: _Writes) -> list[Connection]:
    """Write by one system call; return the connections that have ended."""
    # From here to the system call nothing else may run: it could close a socket, and its number become another's.
    fds = [
        -1 if (websocket := connection.eio_socket.websocket) is None or connection.holds else websocket.writable_fd
        for connection in writes.connections
    ]
    others = None
    if -1 in fds:
        others = writes.where([fd == -1 for fd in fds])
        writes = writes.where([fd != -1 for fd in fds])
        fds = [fd for fd in fds if fd != -1]
    missed = []
    for position, taken in ring.send(writes.frames, fds).items():
        connection = writes.connections[position]
        try:
            goes_on = connection.eio_socket.websocket.wrote(writes.frames[position], taken)
        except Exception:
            goes_on = _give_up(connection)
        if not goes_on:
            missed.append(connection)
    return missed if others is None else missed + _write_each(others)


def _write_each(writes: _Writes) -> list[Connection]:
    missed = []
    for connection, packets, frame in zip(writes.connections, writes.packets, writes.frames, strict=True):
        try:
            websocket = connection.eio_socket.websocket
            direct = websocket is not None and not connection.holds
            taken = websocket.send(frame) if direct else connection.deliver(packets)
        except Exception:
            taken = _give_up(connection)
        if not taken:
            missed.append(connection)
    return missed


def _give_up(connection: Connection) -> bool:
    """End a connection that cannot be written to: nobody else may miss anything for it."""
    _log.exception("closed: unexpected error in a write, sid=%s", connection.sid)
    close(connection)
    return False


def close(connection: Connection) -> None:
    """Close a connection's transport after a fault of the server's: its client comes back and recovers. Raises nothing."""
    try:
        connection.eio_socket.close(reason="server error")
    except Exception:
        _log.exception("unexpected error while closing sid=%s", connection.sid)
