"""The line of what is stored and has not gone out, oldest first: whoever writes takes with him those who wait behind.

Where broadcasts come faster than they can be written out they share the writes: what waits for the same connections goes to
each of them at once, in one system call and one piece of the network's. Nobody waits for that: it is done only with what
waits already, while something else is being written.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from socket_server import log
from socket_server.transport.connection import Connection
from socket_server.transport.fanout import Delivery, FanOut
from socket_server.transport.packets import Packet
from socket_server.transport.turns import Turn, let_arrive

# Together go: at most so many bytes for each connection. Beyond, one system call more costs little beside the copying, and
# a client far away could not take it at once.
_BYTES_TOGETHER = 16_384

# And at most so many connections, or those that have half of theirs in common with the ones before: the others' answer
# would come later for it, and nothing be saved.
_CONNECTIONS_TOGETHER = 1_024

_LARGE = 256  # connections: about a millisecond's writing
_LOOKS = 8

_log = log.logger("Broadcast")


class Batch:
    """Deliveries, one after the other. missed: the connections that could not be written to; None: it is not out yet."""

    __slots__ = ("deliveries", "missed", "reach", "size")

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.reach = 0  # connections, each counted as often as it is written to
        self.size = 0  # bytes, for a connection that gets all of it
        self.missed: set[Connection] | None = None

    def add(self, packet: Packet, connections: Sequence[Connection]) -> None:
        """Put a delivery at the end, as long as the batch is not in the line."""
        self.deliveries.append((packet, connections))
        self.reach += len(connections)
        self.size += len(packet.payload)

    @property
    def large(self) -> bool:
        """Whether it is large enough to go by itself."""
        return self.reach > _LARGE

    def connections(self) -> set[Connection]:
        return set().union(*[connections for _, connections in self.deliveries])


class Outgoing:
    """The line. It belongs to one Broadcaster, in whose turns it grows."""

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out
        self._line: deque[Batch] = deque()
        self._writing = threading.Lock()

    def add(self, batch: Batch) -> None:
        """Put a batch at the end of the line: it goes out after all that is in it."""
        self._line.append(batch)

    def write_out(self, batch: Batch) -> set[Connection]:
        """Wait until a batch that is in the line is written out; return the connections that could not be written to."""
        if batch.missed is None:
            with self._writing:
                while batch.missed is None:
                    self._write_next()
        return batch.missed

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Write out all that is in the line; within, nothing is on its way."""
        with self._writing:
            while self._line:
                self._write_next()
            yield

    def _write_next(self) -> None:
        if self._line[0].large:
            # Whose request is there by now joins in. Beside the writing a look costs nothing.
            for _ in range(_LOOKS):
                seen = len(self._line)
                let_arrive()
                if len(self._line) == seen:
                    break
        batches = self._take()
        missed: set[Connection] = set()
        try:
            missed = self._fan_out(
                batches[0].deliveries if len(batches) == 1 else [each for batch in batches for each in batch.deliveries]
            )
        except Exception:
            _log.exception("unexpected error in a fan-out; its clients come back and recover")
            missed = set().union(*[batch.connections() for batch in batches])
            for connection in missed:
                connection.engine.close(reason="server error")
        finally:
            # Also where the writer is ended: those behind him must not write it once more.
            for batch in batches:
                batch.missed = missed

    def _take(self) -> list[Batch]:
        """Take the first of the line, and as many behind it as go out with it for little more."""
        batches = [self._line.popleft()]
        if not self._line:
            return batches
        most, reached = batches[0].size, batches[0].connections()
        turn = Turn()
        while self._line:
            following = self._line[0]
            theirs = following.connections()
            shared = len(theirs & reached)
            most = most + following.size if shared else max(most, following.size)
            if most > _BYTES_TOGETHER and shared:
                break
            if len(reached) + len(theirs) - shared > _CONNECTIONS_TOGETHER and 2 * shared < len(theirs):
                break
            reached |= theirs
            batches.append(self._line.popleft())
            turn.give_way()
        return batches
