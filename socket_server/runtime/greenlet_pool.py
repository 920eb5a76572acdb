"""The pool: greenlets that stay, and take up one piece of work after another.

Whoever connects makes work of some hundred microseconds several times over. A new greenlet for each costs ten times what
it takes to hand the work to one that is there (its stacks are mapped and unmapped again): when everybody comes back at
once, a tenth of all time.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.lock import Semaphore
from gevent.pool import Pool
from greenlet import getcurrent, greenlet

from socket_server import log

_log = log.logger("Server")

# So many stay when there is no work; each keeps a few KB.
KEPT = 256


class GreenletPool:
    """Runs pieces of work, each in a greenlet that it has for itself meanwhile."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._idle: list[greenlet] = []
        self._work: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def start(self, work: Callable[..., object], *args: Any) -> None:
        """Have work(*args) done: soon, behind all that is ready to run. It may wait; its errors are logged."""
        self._work.append((work, args))
        member = self._idle.pop() if self._idle else greenlet(self._serve, gevent.get_hub())
        # The loop calls in the order in which it was asked: each member finds its piece first in the line.
        gevent.get_hub().loop.run_callback(member.switch)

    def _serve(self) -> None:
        hub, me = gevent.get_hub(), getcurrent()
        while True:
            self._do_next()
            if len(self._idle) >= self._kept:
                return
            self._idle.append(me)
            hub.switch()

    def _do_next(self) -> None:
        work, args = self._work.popleft()
        try:
            work(*args)
        except Exception:
            _log.exception("unexpected error in %r", work)


class BoundedGreenletPool(Pool):
    """A pool with so many places, in the shape in which gevent's servers want it: while it is full they accept nobody."""

    _semaphore: Semaphore  # upstream's, which the type stubs leave out

    def __init__(self, size: int, pool: GreenletPool) -> None:
        super().__init__(size)
        self._crew = pool

    def free_count(self) -> int:
        return self._semaphore.counter

    def spawn(self, work: Callable[..., object], *args: Any) -> None:  # type: ignore[override]  # nobody wants the greenlet
        """Have work(*args) done by the pool. Waits for a place."""
        self._semaphore.acquire()
        self._crew.start(self._do, work, args)

    def _do(self, work: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            work(*args)
        finally:
            self._semaphore.release()
