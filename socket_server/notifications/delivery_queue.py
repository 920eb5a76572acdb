"""The line of what is stored and has not gone out, oldest first.

A publisher does not wait until thousands of connections are written to. What he has brought is safe and has its place; a
writer takes it from there, which exists only meanwhile, and he may bring the next. So broadcasts that come faster than they
can be written out share the writes, though they be one publisher's: what waits for the same connections goes to each of
them at once, in one system call and one piece of the network's. It is done with what waits already, and with what
a few looks at the event loop bring. Where 16 wait already, or 16 KB of them, publishers wait too.

And a small one whose connections nothing ahead of it goes to does not wait for its turn: it overtakes, and no connection
sees the order of others.
"""

import _thread
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from socket_server import log
from socket_server.runtime.time_slice import TimeSlice, poll_event_loop
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import Delivery, FanOut, close
from socket_server.transport.socketio.packets import Packet

# Together go: at most so many bytes for each connection. Beyond, one system call more costs little beside the copying, and
# a client far away could not take it at once.
_BYTES_TOGETHER = 16_384

# And at most so many connections, or those that have half of theirs in common with the ones before: the others' answer
# would come later for it, and nothing be saved.
_CONNECTIONS_TOGETHER = 1_024

_LARGE = 256  # connections: about a millisecond's writing

# Before a large one is written, those whose requests have come are let into the line, at most so many looks at the loop
# long. 16 publishers to 1,000 users: 292,000 deliveries/s without a look, 595,000 with one, 757,000 with eight.
_LOOKS = 8

# So many may wait in the line, of _BYTES_TOGETHER in all, before their publishers wait with them.
_WAITING = 16

_log = log.logger("Broadcast")


class Batch:
    """Deliveries, one after the other. missed: the connections that could not be written to; None: it is not out yet."""

    __slots__ = ("_connections", "deliveries", "missed", "size", "writes")

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.writes = 0
        self.size = 0  # bytes, for a connection that gets all of it
        self.missed: frozenset[Connection] | None = None
        self._connections: frozenset[Connection] | None = None

    def add(self, packet: Packet, connections: Sequence[Connection]) -> None:
        """Put a delivery at the end, as long as the batch is not in the line."""
        self.deliveries.append((packet, connections))
        self.writes += len(connections)
        self.size += len(packet.payload)

    @property
    def large(self) -> bool:
        return self.writes > _LARGE

    @property
    def full(self) -> bool:
        """Whether the next one had better go into a batch of its own."""
        return self.large or self.size > _BYTES_TOGETHER

    @property
    def connections(self) -> frozenset[Connection]:
        """All that it goes to."""
        if self._connections is None:
            self._connections = frozenset().union(*[connections for _, connections in self.deliveries])
        return self._connections


class Lot:
    """What is stored together, on its way into the line. batch: the one that is being made up, the last of the lot."""

    __slots__ = ("_line", "_parted", "batch")

    def __init__(self, line: deque[Batch], parted: Callable[[], object]) -> None:
        """parted: called when a batch is in the line that is not the last of the lot."""
        self._line = line
        self._parted = parted
        self.batch = Batch()

    def put(self, packet: Packet, connections: Sequence[Connection]) -> None:
        """Put a delivery behind the others. What goes to many goes by itself, or those stored with it would wait for it."""
        if self.batch.full or (self.batch.deliveries and len(connections) > _LARGE):
            self.line_up()
            self.batch = Batch()
            self._parted()
        self.batch.add(packet, connections)

    def line_up(self) -> None:
        """Put the batch at the end of the line. One for nobody is out at once."""
        if self.batch.deliveries:
            self._line.append(self.batch)
        else:
            self.batch.missed = frozenset()


class Outgoing:
    """The line. It belongs to one Broadcaster, in whose turns it grows.

    Whoever lines up a lot sends its last batch off. Where he is ended before that, somebody must write for him (at_rest).
    """

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out
        self._line: deque[Batch] = deque()
        self._under_way: Sequence[Batch] = ()  # no longer in the line
        self._writing = threading.Lock()  # of whoever writes what is first
        self._leaving = threading.Lock()  # while a batch leaves the line, or overtakes
        self._has_writer = False
        self._winding_down = False

    @contextmanager
    def lot(self) -> Iterator[Lot]:
        """Line up deliveries: they go out after all that is in the line. What there is of them has its place, also after an
        error. The last batch is then to be sent off."""
        lot = Lot(self._line, self._let_write)
        try:
            yield lot
        finally:
            lot.line_up()

    def send_off(self, batch: Batch) -> frozenset[Connection]:
        """Write a batch out if that is a short business, else leave it to the writer; return the connections that are known
        not to be written to. Waits until it is out where 16 batches are in the line, or 16 KB of them."""
        line = list(self._line)
        if batch.large or self._writing.locked() or line[:1] != [batch]:
            self._overtake(batch)
            if batch.missed is None and self._has_room(line) and self._let_write():
                return frozenset()
        if batch.missed is None:
            with self._writing:
                while batch.missed is None:
                    self._write_next()
        return batch.missed

    def wind_down(self) -> None:
        """Leave nothing to the writer any more, and wait until all that is in the line is out: connections will end now."""
        self._winding_down = True
        self.drain()

    def drain(self) -> None:
        """Wait until all that is in the line by now is written out."""
        with self._writing:
            last = self._line[-1] if self._line else None
            while last is not None and last.missed is None:
                self._write_next()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Write out all that is in the line; within, nothing is on its way. Called in a turn, or the line may grow on."""
        with self._writing:
            while self._line:
                self._write_next()
            with self._leaving:
                yield

    def _has_room(self, line: Sequence[Batch]) -> bool:
        within = len(line) <= _WAITING and sum([batch.size for batch in line]) <= _BYTES_TOGETHER
        return within and not self._winding_down

    def _let_write(self) -> bool:
        """Have the line written out by somebody whom nobody waits for; return False where nobody is to be had."""
        if self._line and not self._has_writer:
            self._has_writer = True
            try:
                # Not threading.Thread: on gevent its start() lets the writer begin before the publisher is answered.
                _thread.start_new_thread(self._write_all, ())
            except RuntimeError:
                self._has_writer = False  # this system has no thread left
                return False
        return True

    def _write_all(self) -> None:
        try:
            while self._line:
                poll_event_loop()  # who waits to write, or for rest
                with self._writing:
                    if self._line:
                        self._write_next()
        finally:
            self._has_writer = False
            if self._line:  # it grew just now, or this one was ended
                self._let_write()

    def _overtake(self, batch: Batch) -> None:
        """Write a small batch at once, if nothing that is ahead of it goes to any of its connections."""
        if batch.missed is not None or batch.large:
            return
        with self._leaving:
            line = list(self._line)
            if batch not in line:
                return  # it is under way, or out
            ahead = [*self._under_way, *line[: line.index(batch)]]
            if all(each.connections.isdisjoint(batch.connections) for each in ahead):
                self._line.remove(batch)
                self._write([batch])

    def _write_next(self) -> None:
        line = list(self._line)
        if line and line[0].large:
            for _ in range(_LOOKS):
                seen = len(self._line)
                poll_event_loop()
                if len(self._line) <= seen:
                    break
        batches = self._take()
        try:
            self._write(batches)
        finally:
            self._under_way = ()

    def _write(self, batches: Sequence[Batch]) -> None:
        missed: frozenset[Connection] = frozenset()
        try:
            missed = frozenset(self._fan_out([each for batch in batches for each in batch.deliveries]))
        except BaseException as error:
            # Nobody knows what has gone out. Nothing newer may go to a connection that has missed something: its client
            # would go on from there.
            _log.exception("not written out: the clients come back and recover")
            missed = frozenset().union(*[batch.connections for batch in batches])
            for connection in missed:
                close(connection)
            if not isinstance(error, Exception):
                raise
        finally:
            for batch in batches:
                batch.missed = missed

    def _take(self) -> Sequence[Batch]:
        """Take the first of the line, and those behind it that go with it."""
        count = 1 if len(self._line) <= 1 else self._count()
        with self._leaving:
            batches = [self._line.popleft() for _ in range(min(count, len(self._line)))]
            self._under_way = batches
        return batches

    def _count(self) -> int:
        """Return how many of the line go out together for little more than the first alone; gives way meanwhile."""
        time_slice = TimeSlice()
        count = most = bound = 0
        reached: set[Connection] = set()
        while count < len(line := list(self._line)):  # it grows meanwhile, and some overtake
            batch = line[count]
            shared = len(batch.connections & reached)
            together = len(reached) + len(batch.connections) - shared
            size = most + batch.size if shared else max(most, batch.size)
            if count == 0:
                bound = 2 * together
            else:
                saves = 2 * shared >= len(batch.connections) and together <= bound
                few = not batch.large and together <= _CONNECTIONS_TOGETHER
                if (shared and size > _BYTES_TOGETHER) or not (saves or few):
                    break
            most = size
            reached |= batch.connections
            count += 1
            time_slice.maybe_yield()
        return count
