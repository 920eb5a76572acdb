"""Turns: on gevent nobody is interrupted, so whoever has much to do gives way of its own accord."""

import threading
import time
from types import TracebackType

import gevent
from gevent.monkey import is_module_patched

# No heartbeat, request or other client waits much longer than this for one greenlet.
TIME_SLICE_S = 0.005


def poll_event_loop() -> None:
    """Let those go first whose bytes have arrived by now: wait until the event loop has looked for them once.

    Unlike sleep(0) it does not go behind every greenlet that is ready to run: where thousands of clients come back at once,
    that is a fifth of a second.
    """
    if not is_module_patched("time"):
        return  # threads arrive by themselves
    hub = gevent.get_hub()
    before_looking = hub.loop.prepare()
    awake = hub.loop.idle()  # or the loop might sleep when it looks
    awake.start(_nothing)
    try:
        hub.wait(before_looking)
        hub.wait(before_looking)  # it has looked, and served what it found
    finally:
        awake.close()
        before_looking.close()


def _nothing() -> None:
    pass


class TimeSlice:
    """One greenlet's turn, from its making or its last pause on."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew: the greenlet has just waited for something."""
        self._ends = time.perf_counter() + TIME_SLICE_S

    def maybe_yield(self) -> None:
        """Let the hub serve everyone else, where the turn is over."""
        if time.perf_counter() > self._ends:
            if is_module_patched("time"):
                # Not sleep(0): the hub runs up to 50 who are ready before it looks at the time, and meanwhile at no socket
                # and no timer. One who has much to do would be all of them: 50 turns in a row.
                poll_event_loop()
            else:
                time.sleep(0)
            self.renew()


class YieldingLock:
    """Long pieces of work of many greenlets, one after the other: `with queue: …`. The hub serves everyone else as soon as
    they have taken a turn together; each for itself they would all run before it looks."""

    __slots__ = ("_one", "_time_slice")

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._time_slice = TimeSlice()

    def __enter__(self) -> None:
        self._one.acquire()
        try:
            self._time_slice.maybe_yield()
        except BaseException:
            self._one.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._one.release()
