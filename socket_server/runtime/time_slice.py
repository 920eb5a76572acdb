"""Time slices: gevent does not preempt greenlets, so long work must yield to the event loop by itself."""

import threading
import time
from types import TracebackType

import gevent
from gevent.monkey import is_module_patched

TIME_SLICE_S = 0.005  # the longest that one greenlet should run without yielding


def poll_event_loop() -> None:
    """Wait until the event loop has polled its sockets and timers once, and has run their callbacks.

    Other greenlets that are already runnable do not run first, as they would with sleep(0): when thousands of clients
    reconnect at once, that takes a fifth of a second. Under threads (`flask run`) this returns at once.
    """
    if not is_module_patched("time"):
        return
    hub = gevent.get_hub()
    before_poll = hub.loop.prepare()
    keep_awake = hub.loop.idle()  # without it the loop might block in its poll
    keep_awake.start(_nothing)
    try:
        hub.wait(before_poll)
        hub.wait(before_poll)  # the second time, one poll lies between
    finally:
        keep_awake.close()
        before_poll.close()


def _nothing() -> None:
    pass


class TimeSlice:
    """The time slice of one greenlet. It starts when the object is made and at each renewal."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start a new time slice. Call it after the greenlet has waited for something."""
        self._ends = time.perf_counter() + TIME_SLICE_S

    def maybe_yield(self) -> None:
        """Yield to the event loop if the time slice is over."""
        if time.perf_counter() > self._ends:
            if is_module_patched("time"):
                # Not sleep(0): the hub runs up to 50 runnable greenlets before it polls sockets and timers again. With
                # 50 busy greenlets that would be 50 time slices in a row.
                poll_event_loop()
            else:
                time.sleep(0)
            self.renew()


class YieldingLock:
    """A lock for long work: its holders run one after the other and share one time slice.

    Without it, each of many runnable greenlets would use a time slice of its own before the event loop polls again.
    """

    __slots__ = ("_lock", "_time_slice")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._time_slice = TimeSlice()

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._time_slice.maybe_yield()
        except BaseException:
            self._lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
