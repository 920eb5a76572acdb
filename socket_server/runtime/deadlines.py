"""Deadlines: call something at a time, unless it is cancelled before. One thread (a greenlet, under gevent) for all."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from socket_server import log
from socket_server.runtime.time_slice import TimeSlice

_log = log.logger("Server")

# Cancelled deadlines stay in the heap until their time, which for a token's expiry may be days: swept when they are many.
_SWEEP_AT = 1_000


class Deadline:
    """One call to come. Cancelling is cheap and may be done twice."""

    __slots__ = ("_owner", "call", "when")

    def __init__(self, owner: "Deadlines", when: float, call: Callable[[], object]) -> None:
        self._owner = owner
        self.when = when
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self._owner.cancel(self)


class Deadlines:
    """A heap of deadlines. The calls are made one after the other and must not block."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Deadline]] = []
        self._serial = itertools.count()
        self._cancelled = 0
        self._changed = threading.Condition(threading.Lock())
        self._running = False

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def after(self, delay_s: float, call: Callable[[], object]) -> Deadline:
        """Call something `delay_s` seconds from now."""
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
        """Let a deadline pass without its call, and sweep when half of the heap is such."""
        with self._changed:
            if deadline.call is None:
                return
            deadline.call = None
            self._cancelled += 1
            if self._cancelled > _SWEEP_AT and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].call is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _run(self) -> None:
        time_slice = TimeSlice()
        while True:
            call: Callable[[], object] | None = self._next()
            try:
                if call is not None:
                    call()
            except Exception:
                _log.exception("a deadline's call failed")
            call = None  # or what it refers to would be kept until the next one
            time_slice.maybe_yield()

    def _next(self) -> Callable[[], object]:
        """Wait for the next call that is due."""
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > self._clock():
                    self._changed.wait(self._heap[0][0] - self._clock() if self._heap else None)
                deadline = heapq.heappop(self._heap)[2]
                call, deadline.call = deadline.call, None
                if call is None:
                    self._cancelled -= 1
            if call is not None:
                return call
