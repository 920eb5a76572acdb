"""Delivery queue: packets that are stored and not yet written, in order for each connection.

Each connection has its own pending packets. A write takes all of them, up to MAX_COALESCED_BYTES, so
that broadcasts which arrive faster than they can be written share their writes.

- A broadcast to few connections is written by its publisher at once. Pending packets of other connections do not delay it.
- A broadcast to many is left to the flusher: a greenlet that exists while packets are pending. The publisher continues.
- Backpressure: publishers to many block while more than HIGH_WATER_BYTES are pending.

The caller calls enqueue() in offset order, then submit(). If the caller is killed in between, call start_flusher().
"""

import _thread
import threading
from collections import deque
from collections.abc import Sequence

from socket_server import log
from socket_server.runtime.time_slice import TimeSlice, poll_event_loop
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import MAX_WRITES, FanOut, PacketRun, close
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Broadcast")

# Bytes per connection and write. A longer write saves little, and a distant client cannot take it at once.
MAX_COALESCED_BYTES = 16_384

# Bytes written, over all connections, before the clock is read: about a millisecond.
MAX_CHUNK_BYTES = 262_144

# A broadcast to at most this many connections is written before its publisher is answered, and the answer counts the
# connections that took it (docs/protocol.md, section 2). The flusher writes broadcasts to more.
MAX_DIRECT_CONNECTIONS = 256

# The same for all broadcasts of a batch together.
MAX_DIRECT_BATCH = 1_024

# Bytes of all pending packets, counted once for each connection (in memory a packet is shared). Above it publishers block.
HIGH_WATER_BYTES = 33_554_432

# Before a round of writes the flusher polls the event loop, so that publishers whose requests have arrived join the round.
# It stops after IDLE_POLLS in a row that bring nothing (80 µs). On a busy machine, with 2 publishers to 1,000 users, a
# delivery took 2.8 µs of processor time with 2 idle polls, 2.0 µs with 8, and 1.65 µs with 16.
MAX_COALESCE_POLLS = 32
IDLE_POLLS = 16


class Batch:
    """What is enqueued together.

    direct: connections that submit() has still to write to; deferred: whether packets are left to the flusher; missed:
    connections that did not take their packets.
    """

    __slots__ = ("deferred", "direct", "missed")

    def __init__(self) -> None:
        self.direct: deque[Connection] = deque()
        self.deferred = False
        self.missed: set[Connection] = set()


class DeliveryQueue:
    """The pending packets of all connections. Safe from any thread or greenlet."""

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out
        self._pending: dict[Connection, PacketRun] = {}  # in the order in which the connections got something to write
        self._bytes = 0  # of _pending
        self._lock = threading.Lock()  # guards the two above; nothing is written under it
        # Publishers wait in it for the end of a round, or of the flusher. Not a condition of _lock: on gevent notify_all()
        # yields if its lock is a plain one.
        self._round_written = threading.Condition()
        self._writing = threading.Lock()  # held from taking packets until they are written: writes keep their order
        self._has_flusher = False
        self._closing = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of all pending packets, counted once for each connection."""
        return self._bytes

    def enqueue(self, batch: Batch, packet: Packet, connections: Sequence[Connection]) -> None:
        """Append a packet to what is pending for these connections, each named once. Writes nothing and does not block."""
        few = len(connections) <= MAX_DIRECT_CONNECTIONS and len(batch.direct) < MAX_DIRECT_BATCH
        if few or self._closing:
            batch.direct += connections
        else:
            batch.deferred = True
        alone = PacketRun((packet,))
        # Connections with the same pending packets share one run. Most audiences have one or a few different runs.
        extended: dict[PacketRun, PacketRun] = {}
        previous: PacketRun | None = None
        following = alone
        pending = self._pending
        with self._lock:
            for connection in connections:
                run = pending.get(connection)
                if run is None:
                    pending[connection] = alone
                    continue
                if run is not previous:
                    previous = run
                    if run not in extended:
                        extended[run] = run.followed_by(packet)
                    following = extended[run]
                pending[connection] = following
            self._bytes += alone.size * len(connections)

    def submit(self, batch: Batch, *, may_block: bool = True) -> frozenset[Connection]:
        """Write to the few connections, leave the many to the flusher; return the connections known to have missed packets.

        may_block: if packets are left to the flusher, block while more than HIGH_WATER_BYTES are pending.
        """
        self._write_all(batch.direct, batch.missed)
        if batch.deferred:
            self._leave_to_flusher(may_block)
        return frozenset(batch.missed)

    def start_flusher(self) -> bool:
        """Have another greenlet write what is pending; return False if none can be started."""
        if self._pending and not self._has_flusher:
            self._has_flusher = True
            try:
                # Not threading.Thread: on gevent its start() lets the flusher run before the publisher is answered.
                _thread.start_new_thread(self._flush, ())
            except RuntimeError:
                self._has_flusher = False
                return False
        return True

    def drain(self) -> None:
        """Write all that is pending now."""
        self._write_all(self._oldest_first(), set())
        with self._writing:
            pass  # what another thread has taken is written too

    def close(self) -> None:
        """Write all that is pending. From now on submit() leaves nothing to the flusher: connections are about to end."""
        self._closing = True
        self.drain()

    def _leave_to_flusher(self, may_block: bool) -> None:
        while self.start_flusher():
            if not may_block or self._bytes <= HIGH_WATER_BYTES:
                return
            with self._round_written:
                self._round_written.wait_for(lambda: self._bytes <= HIGH_WATER_BYTES or not self._has_flusher)
        self.drain()

    def _flush(self) -> None:
        try:
            while self._pending:
                self._poll_for_publishers()
                self._write_all(self._oldest_first(), set())
                self._wake_publishers()
        finally:
            # More may be pending here: enqueued at the last moment, or left by this greenlet when it was killed.
            self._has_flusher = False
            self.start_flusher()
            self._wake_publishers()

    def _wake_publishers(self) -> None:
        with self._round_written:
            self._round_written.notify_all()

    def _poll_for_publishers(self) -> None:
        idle = 0
        for _ in range(MAX_COALESCE_POLLS):
            before = self._bytes
            poll_event_loop()
            idle = 0 if self._bytes > before else idle + 1
            if idle == IDLE_POLLS:
                break

    def _oldest_first(self) -> deque[Connection]:
        with self._lock:
            return deque(self._pending)

    def _write_all(self, connections: deque[Connection], missed: set[Connection]) -> None:
        """Write what is pending for these connections, and remove them; add those that have ended to `missed`."""
        time_slice = TimeSlice()
        while connections:
            self._write_chunk(connections, missed)
            time_slice.maybe_yield()

    def _write_chunk(self, connections: deque[Connection], missed: set[Connection]) -> None:
        with self._writing:
            taken, runs = self._take(connections)
            try:
                missed.update(self._fan_out.write(taken, runs))
            except BaseException as error:
                # It is unknown what was written. A client that missed a packet must not get a newer one: it would recover
                # from the newer offset.
                _log.exception("not written: closing the connections, their clients reconnect and recover")
                missed.update(taken)
                for connection in taken:
                    close(connection)
                if not isinstance(error, Exception):
                    raise

    def _take(self, connections: deque[Connection]) -> tuple[list[Connection], list[PacketRun]]:
        """Take what is pending for the first of the connections, for one chunk of writes."""
        taken: list[Connection] = []
        runs: list[PacketRun] = []
        rests: dict[Connection, PacketRun] = {}  # for later chunks
        size = 0
        with self._lock:
            while connections and size < MAX_CHUNK_BYTES and len(taken) < MAX_WRITES:
                connection = connections.popleft()
                run = self._pending.pop(connection, None)
                if run is None:
                    continue  # written by another greenlet
                if run.size > MAX_COALESCED_BYTES and len(run.packets) > 1:
                    run, rests[connection] = run.split(MAX_COALESCED_BYTES)
                taken.append(connection)
                runs.append(run)
                size += run.size
            self._bytes -= size
            self._pending.update(rests)
            connections += rests
        return taken, runs
