"""One heartbeat for all connections of a process (Engine.IO protocol 4, "Heartbeat").

The server pings, the client answers; a session whose answer is overdue has lost its client. Interval and timeout are the
same for everyone, so both queues are in order of time by construction and a beat looks at their heads only.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from socket_server import log

_log = log.logger("Socket.IO")

# A beat serves so many sessions at most, then lets others run: the ones that connected together are due together.
_SESSIONS_PER_BEAT = 200
_SOON_S = 0.002


class Beating(Protocol):
    """A session with a heartbeat. Called from the hub: must not block."""

    def ping(self) -> None:
        """Send a PING."""

    def overdue(self) -> None:
        """The answer to the last PING did not come in time."""


class Heartbeat:
    """Pings every session `interval_s` after its start and after each answer; tells it where an answer is overdue."""

    def __init__(self, interval_s: float, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._resting: dict[Beating, float] = {}  # session -> when its next PING is due, soonest first
        self._awaited: dict[Beating, float] = {}  # session -> when its PONG is overdue, soonest first
        self._period_s = max(0.01, min(interval_s, timeout_s, 10.0) / 20)
        self._timer: Any = None

    def add(self, session: Beating) -> None:
        """Begin with a session."""
        self._resting[session] = self._clock() + self._interval_s
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(self._period_s)
            self._timer.start(self._beat)

    def pong(self, session: Beating) -> None:
        """A session's answer came; one that nobody asked for changes nothing."""
        if self._awaited.pop(session, None) is not None:
            self._resting[session] = self._clock() + self._interval_s

    def discard(self, session: Beating) -> None:
        """Forget a session."""
        if self._resting.pop(session, None) is None:
            self._awaited.pop(session, None)

    def _beat(self) -> None:
        now = self._clock()
        due = _until(self._resting, now)
        overdue_at = now + self._timeout_s
        for session in due:
            if self._resting.pop(session, None) is not None:  # else one before it has ended it
                self._awaited[session] = overdue_at
                _call(session.ping)
        gone = _until(self._awaited, now)
        for session in gone:
            if self._awaited.pop(session, None) is not None:
                _call(session.overdue)
        if not self._resting and not self._awaited:
            self._timer.close()
            self._timer = None
            return
        full = len(due) == _SESSIONS_PER_BEAT or len(gone) == _SESSIONS_PER_BEAT
        self._timer.stop()
        self._timer.close()
        self._timer = gevent.get_hub().loop.timer(_SOON_S if full else self._period_s)
        self._timer.start(self._beat)


def _call(what: Callable[[], None]) -> None:
    """One session's fault must not stop the others' heartbeat."""
    try:
        what()
    except Exception:
        _log.exception("unexpected error in a heartbeat")


def _until(queue: dict[Beating, float], now: float) -> list[Beating]:
    found: list[Beating] = []
    for session, due in queue.items():
        if due > now or len(found) == _SESSIONS_PER_BEAT:
            break
        found.append(session)
    return found
