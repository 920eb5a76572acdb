"""Load balancing: new connections go to the worker that holds the fewest.

The kernel wakes all workers for each new connection, and the first to accept it keeps it; that is nearly always the same
one. So an overloaded worker delays its accept() to let another worker take the connection. The workers compare their
numbers of connections in memory that they share.
"""

import mmap
import time
from collections.abc import Iterable

_SLOTS = 1_024  # a worker's slot is its number in gunicorn's count; at most 256 run at once, and as many successors

# A worker is overloaded if it holds this many connections more than another, plus this part of the other's number.
_TOLERANCE = 8
_TOLERANCE_PART = 0.1

ACCEPT_DELAY_S = 0.003  # how long an overloaded worker waits; then it accepts what no other worker has
STALLED_AFTER_S = 1.0  # a worker that has not reported for this long does not count: it takes no connections

# How long a worker that is about to end waits before it looks again whether others are there to accept.
ENDING_DELAY_S = 0.05


class LoadTable:
    """The number of connections of every worker. Make it before the workers are forked: they share its memory."""

    def __init__(self) -> None:
        self.held = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("Q")  # connections + 1; 0: no such worker
        self.reported_at = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("d")  # the monotonic clock is the same everywhere

    def of_worker(self, number: int) -> "WorkerLoad":
        """Return the entry of a worker. number: gunicorn's `worker.age`."""
        return WorkerLoad(self, number % _SLOTS)


class WorkerLoad:
    """The load of one worker beside the others."""

    def __init__(self, table: LoadTable, slot: int) -> None:
        self._table = table
        self._slot = slot
        self._ended = False

    def beat(self) -> None:
        """Report that this worker is running. To be called several times in STALLED_AFTER_S."""
        self._table.reported_at[self._slot] = time.monotonic()

    def accept_delay_s(self, held: int, delayed: bool = False) -> float:
        """Report this worker's number of connections; return how long it should delay the next accept(), in seconds.

        delayed: it has delayed once for this connection already.
        """
        if self._ended:
            return ENDING_DELAY_S if any(self._table.held) else 0.0
        self._table.held[self._slot] = held + 1
        self.beat()
        if delayed or not _overloaded(held, self._table.held.tolist()):
            return 0.0
        since = time.monotonic() - STALLED_AFTER_S
        running = [count for count, at in zip(self._table.held, self._table.reported_at, strict=True) if at > since]
        return ACCEPT_DELAY_S if _overloaded(held, running) else 0.0

    def end(self) -> None:
        """Report that this worker is about to end, or has ended."""
        self._ended = True
        self._table.held[self._slot] = 0


def _overloaded(held: int, reported: Iterable[int]) -> bool:
    """Return whether `held` connections are clearly more than the fewest of these, given as in LoadTable.held."""
    fewest = min(filter(None, reported)) - 1
    return held > fewest + _TOLERANCE + fewest * _TOLERANCE_PART
