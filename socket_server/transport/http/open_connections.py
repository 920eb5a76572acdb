"""The open HTTP connections of a worker: ends those that are overdue, and idle ones if there are too many.

A connection waits if it has sent no complete request yet, or none since its last response. Each holds a greenlet and a
descriptor, so their number is limited, and the longest-waiting ones are closed first: unserved connections, which have
never sent a request, before served ones. A back end's kept connection is worth more than a silent client's.
"""

import time
from collections.abc import Callable
from typing import Protocol

import gevent

from socket_server.runtime.descriptors import DescriptorBudget

# Most waiting connections of a worker; fewer if it has little room (see __init__).
MAX_WAITING = 1_000

# While no more greenlets than this are free, waiting connections are closed early.
GREENLET_RESERVE = 100

_WATCH_S = 0.5  # how often overdue connections are looked for

# Closing many connections at once would delay all others: the greenlet of each ends in the same pass of the event loop.
_CLOSED_TOGETHER = 16
_PAUSE_S = 0.001


class Connection(Protocol):
    """One connection, as it is seen here."""

    deadline: float  # monotonic clock; it is overdue after that
    opened_at: float
    busy: bool  # a request has begun and is not yet answered
    descriptor_moved: bool  # its descriptor is counted by another object now

    def end(self) -> None:
        """Shut the connection down; its greenlet notices and calls remove(). Must not block."""

    def time_out(self) -> None:
        """End the connection, with a response if a part of a request has been read. Must not block."""


class OpenConnections:
    """Registers connections. One for all listening sockets of a worker."""

    def __init__(self, descriptors: DescriptorBudget, pool_size: int, free_greenlets: Callable[[], int]) -> None:
        """pool_size, free_greenlets: of the pool in which connections are served."""
        self.descriptors = descriptors
        self._free_greenlets = free_greenlets
        self._greenlet_reserve = min(GREENLET_RESERVE, pool_size // 10)
        self._max_waiting = min(MAX_WAITING, pool_size // 2, max(1, descriptors.limit // 2))
        self._all: set[Connection] = set()
        # Insertion order is the order in which they began to wait.
        self._unserved: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection) -> None:
        """Register a connection that was accepted.

        If too many wait, the longest-waiting one is closed at once and not at the next look for overdue ones: until then
        thousands could connect, each of which costs 10 KB.
        """
        self.descriptors.take()
        self._all.add(connection)
        if len(self._unserved) >= self._max_waiting or self.scarce:
            self._end_longest_waiting()
        self._unserved[connection] = None  # after that, so that it is not the one

    def served(self, connection: Connection) -> None:
        """A complete request, or an API key, has been read: the connection does not wait."""
        self._unserved.pop(connection, None)
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """A response has been sent: the connection waits for the next request."""
        self._idle[connection] = None

    def remove(self, connection: Connection) -> None:
        """A connection has ended or has become a WebSocket."""
        self._all.discard(connection)
        self.served(connection)
        if not connection.descriptor_moved:
            self.descriptors.give_back()

    @property
    def scarce(self) -> bool:
        """Whether only the reserve of descriptors or greenlets is left. Back ends may use it."""
        return self.descriptors.low or self._free_greenlets() <= self._greenlet_reserve

    def expecting(self, since: float) -> bool:
        """Return whether a request is in progress, or a connection that was opened after `since` has sent none yet."""
        return any(each.busy for each in self._all) or any(each.opened_at > since for each in self._unserved)

    def watch(self) -> None:
        """Close overdue and excess connections until the greenlet is killed."""
        while True:
            gevent.sleep(_WATCH_S)
            now = time.monotonic()
            for number, connection in enumerate([each for each in self._all if each.deadline < now], 1):
                if connection in self._all:
                    connection.time_out()
                if number % _CLOSED_TOGETHER == 0:
                    gevent.sleep(_PAUSE_S)
            closed = 0
            while len(self._unserved) + len(self._idle) > self._max_waiting:
                self._end_longest_waiting()
                closed += 1
                if closed % _CLOSED_TOGETHER == 0:
                    gevent.sleep(_PAUSE_S)

    def _end_longest_waiting(self) -> None:
        for waiting in (self._unserved, self._idle):
            if waiting:
                connection = next(iter(waiting))
                del waiting[connection]
                connection.end()
                return
