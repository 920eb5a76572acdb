"""Polling sessions that ended while their client was between two requests: what it has not fetched, for a while.

Without it a refused client would not get its `auth_error` and DISCONNECT: it would take the 400 of its next poll for a lost
connection, reconnect, and be refused again.
"""

import time
from collections.abc import Callable
from typing import Any

import gevent

from socket_server.transport.engineio.packets import Packet
from socket_server.transport.engineio.polling_queue import PollingQueue

KEEP_S = 10.0
MAX_SESSIONS = 10_000  # beyond it the oldest is dropped


class DepartedSessions:
    """session id -> what its client has not fetched."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queues: dict[str, tuple[float, PollingQueue]] = {}  # oldest first
        self._timer: Any = None

    def __contains__(self, sid: str) -> bool:
        return sid in self._queues

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, sid: str, queue: PollingQueue) -> None:
        """Keep what is queued for KEEP_S seconds."""
        self._queues[sid] = self._clock() + KEEP_S, queue
        if len(self._queues) > MAX_SESSIONS:
            del self._queues[next(iter(self._queues))]
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(KEEP_S, KEEP_S)
            self._timer.start(self._expire)

    def take(self, sid: str) -> list[Packet]:
        """Return what the client has not fetched."""
        entry = self._queues.get(sid)
        return [] if entry is None else entry[1].take()

    def _expire(self) -> None:
        now = self._clock()
        while self._queues and next(iter(self._queues.values()))[0] <= now:
            del self._queues[next(iter(self._queues))]
        if not self._queues:
            self._timer.stop()
            self._timer.close()
            self._timer = None
