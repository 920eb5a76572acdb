"""Deadlines: call a function at a given time unless it is canceled first.

One thread serves all deadlines; under gevent it is a greenlet.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from socket_server import log
from socket_server.runtime.time_slice import TimeSlice

_log = log.logger("Server")

# A canceled deadline stays in the heap until its time, which may be days away. Above this number of canceled deadlines,
# and if they are more than half of the heap, they are removed.
_SWEEP_AT = 1_000


class Deadline:
    """One scheduled call. It may be canceled any number of times, also after the call."""

    __slots__ = ("_owner", "call", "when")

    def __init__(self, owner: "Deadlines", when: float, call: Callable[[], object]) -> None:
        self._owner = owner
        self.when = when
        self.call: Callable[[], object] | None = call  # None: called or canceled

    def cancel(self) -> None:
        self._owner.cancel(self)


class Deadlines:
    """A heap of deadlines. Calls are made one at a time and must not block. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Deadline]] = []
        self._serial = itertools.count()  # orders deadlines of the same time
        self._canceled = 0  # canceled deadlines that are still in the heap
        self._changed = threading.Condition(threading.Lock())
        self._running = False

    def __len__(self) -> int:
        """Return the number of deadlines that are neither called nor canceled."""
        return len(self._heap) - self._canceled

    def after(self, delay_s: float, call: Callable[[], object]) -> Deadline:
        """Call a function in `delay_s` seconds; at once if that is 0 or negative. Its errors are logged."""
        deadline = Deadline(self, self._clock() + delay_s, call)
        with self._changed:
            heapq.heappush(self._heap, (deadline.when, next(self._serial), deadline))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="deadlines", daemon=True).start()
            elif self._heap[0][2] is deadline:
                self._changed.notify()
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Cancel a deadline. Nothing happens if it was called or canceled before."""
        with self._changed:
            if deadline.call is None:
                return
            deadline.call = None
            self._canceled += 1
            if self._canceled > _SWEEP_AT and self._canceled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].call is not None]
                heapq.heapify(self._heap)
                self._canceled = 0

    def _run(self) -> None:
        time_slice = TimeSlice()
        while True:
            call: Callable[[], object] | None = self._next()
            try:
                if call is not None:
                    call()
            except Exception:
                _log.exception("a deadline's call failed")
            call = None  # a reference kept here would keep its objects alive until the next call
            time_slice.maybe_yield()

    def _next(self) -> Callable[[], object]:
        """Wait for the next call that is due and return it."""
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > self._clock():
                    self._changed.wait(self._heap[0][0] - self._clock() if self._heap else None)
                deadline = heapq.heappop(self._heap)[2]
                call, deadline.call = deadline.call, None
                if call is None:
                    self._canceled -= 1
            if call is not None:
                return call
