"""Greenlet pools: reuse greenlets for many short tasks, and bound how many tasks run at once.

A new connection starts several tasks of a few hundred microseconds each. Starting a greenlet for each costs ten times as
much as giving the task to an idle one, because the greenlet's stacks are mapped and unmapped each time. When all clients
reconnect at once, that is a tenth of the processor time.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.lock import Semaphore
from greenlet import getcurrent, greenlet

from socket_server import log

_log = log.logger("Server")

MAX_IDLE = 256  # idle greenlets that are kept, a few KB each


class GreenletPool:
    """Runs tasks, each in a greenlet that runs nothing else until the task ends. Their number is not bounded."""

    def __init__(self, max_idle: int = MAX_IDLE) -> None:
        self._max_idle = max_idle
        self._idle: list[greenlet] = []
        self._tasks: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def start(self, task: Callable[..., object], *args: Any) -> None:
        """Run task(*args) soon, after all greenlets that are runnable now. It may block; its errors are logged."""
        self._tasks.append((task, args))
        member = self._idle.pop() if self._idle else greenlet(self._serve, gevent.get_hub())
        # The loop runs callbacks in order, so each greenlet finds the task that it was started for first in the queue.
        gevent.get_hub().loop.run_callback(member.switch)

    def _serve(self) -> None:
        hub, me = gevent.get_hub(), getcurrent()
        while True:
            self._run_next()
            if len(self._idle) >= self._max_idle:
                return
            self._idle.append(me)
            hub.switch()

    def _run_next(self) -> None:
        task, args = self._tasks.popleft()
        try:
            task(*args)
        except Exception:
            _log.exception("unexpected error in %r", task)


class BoundedGreenletPool:
    """At most `size` tasks at once on a GreenletPool. It is what gevent's servers call a pool: while it is full they do
    not accept.

    gevent's BaseServer uses full(), spawn(), and rawlink() and unlink() of `_semaphore`; its stop() is not used here.
    """

    def __init__(self, size: int, pool: GreenletPool) -> None:
        self.size = size
        self._semaphore = Semaphore(size)
        self._pool = pool

    def full(self) -> bool:
        """Return whether `size` tasks are running."""
        return self.free_count() <= 0

    def free_count(self) -> int:
        """Return how many more tasks may run."""
        return self._semaphore.counter

    def spawn(self, task: Callable[..., object], *args: Any) -> None:
        """Run task(*args). Blocks while the pool is full."""
        self._semaphore.acquire()
        self._pool.start(self._run, task, args)

    def _run(self, task: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            task(*args)
        finally:
            self._semaphore.release()
