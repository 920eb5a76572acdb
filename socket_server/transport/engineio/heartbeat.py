"""One heartbeat for all sessions of a process (Engine.IO protocol 4, "Heartbeat").

The server sends PING, the client answers PONG; a session whose PONG is overdue has lost its client. All sessions have the
same interval and timeout, so both queues are in order of time, and a beat looks at their heads only.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from socket_server import log

_log = log.logger("Socket.IO")

# Sessions that connected together are due together: a beat serves this number, and the next beat follows soon.
_SESSIONS_PER_BEAT = 200
_NEXT_BEAT_S = 0.002


class Session(Protocol):
    """A session with a heartbeat. Its methods are called from the hub and must not block."""

    def ping(self) -> None:
        """Send a PING."""

    def overdue(self) -> None:
        """The PONG for the last PING did not arrive in time."""


class Heartbeat:
    """Calls ping() of each session `interval_s` after its start and after each PONG, and overdue() if a PONG is late."""

    def __init__(self, interval_s: float, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: dict[Session, float] = {}  # session -> when its next PING is due, soonest first
        self._pinged: dict[Session, float] = {}  # session -> when its PONG is overdue, soonest first
        self._period_s = max(0.01, min(interval_s, timeout_s, 10.0) / 20)
        self._timer: Any = None  # while there are sessions

    def add(self, session: Session) -> None:
        self._waiting[session] = self._clock() + self._interval_s
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(self._period_s)
            self._timer.start(self._beat)

    def pong(self, session: Session) -> None:
        """A PONG arrived. One without a PING before it changes nothing."""
        if self._pinged.pop(session, None) is not None:
            self._waiting[session] = self._clock() + self._interval_s

    def discard(self, session: Session) -> None:
        if self._waiting.pop(session, None) is None:
            self._pinged.pop(session, None)

    def _beat(self) -> None:
        now = self._clock()
        due = _until(self._waiting, now)
        overdue_at = now + self._timeout_s
        for session in due:
            if self._waiting.pop(session, None) is not None:  # None: an earlier session in this loop has ended it
                self._pinged[session] = overdue_at
                _call(session.ping)
        overdue = _until(self._pinged, now)
        for session in overdue:
            if self._pinged.pop(session, None) is not None:
                _call(session.overdue)
        self._timer.stop()
        self._timer.close()
        self._timer = None
        if self._waiting or self._pinged:
            more = len(due) == _SESSIONS_PER_BEAT or len(overdue) == _SESSIONS_PER_BEAT
            self._timer = gevent.get_hub().loop.timer(_NEXT_BEAT_S if more else self._period_s)
            self._timer.start(self._beat)


def _call(method: Callable[[], None]) -> None:
    """Call a session's method. An error of one session must not stop the heartbeat of the others."""
    try:
        method()
    except Exception:
        _log.exception("unexpected error in a heartbeat")


def _until(queue: dict[Session, float], now: float) -> list[Session]:
    """Return the sessions at the head of a queue whose time has come, at most _SESSIONS_PER_BEAT."""
    found: list[Session] = []
    for session, due in queue.items():
        if due > now or len(found) == _SESSIONS_PER_BEAT:
            break
        found.append(session)
    return found
