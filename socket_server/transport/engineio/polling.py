"""The polling transport: what waits for a client that polls, and the request that waits for it.

Such a request costs a greenlet for as long as it waits; only WebSockets are parked.
"""

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from socket_server.transport.socketio.packets import Packet


class PollingQueue:
    """What waits for a client that polls, and the one request that waits for it."""

    __slots__ = ("_bytes", "_max_bytes", "_packets", "_wakeup", "ended", "taken")

    def __init__(self, max_bytes: int) -> None:
        self._packets: list[Packet] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._wakeup: Event | None = None
        self.taken = False  # a POST is being read
        self.ended = False

    @property
    def polled(self) -> bool:
        """Whether a request is waiting."""
        return self._wakeup is not None

    def put(self, packet: Packet) -> bool:
        """Queue a packet; return False where that is too much for a client that does not fetch."""
        self._packets.append(packet)
        self._bytes += len(packet.payload)
        if self._wakeup is not None:
            self._wakeup.set()
        # One alone may be larger: cut over it, the client would come back only to be cut again.
        return self._bytes <= self._max_bytes or len(self._packets) == 1

    @property
    def empty(self) -> bool:
        """Whether the client has fetched everything."""
        return not self._packets

    def take(self) -> list[Packet]:
        """Return what is queued, without waiting."""
        taken, self._packets, self._bytes = self._packets, [], 0
        return taken

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to take, or the session has ended."""
        if self._packets or self.ended:
            return
        self._wakeup = Event()
        try:
            self._wakeup.wait(timeout_s)
        finally:
            self._wakeup = None

    def end(self) -> None:
        """Let go of the request that waits."""
        self.ended = True
        if self._wakeup is not None:
            self._wakeup.set()


class Departure:
    """Watches the socket of a request that waits, and calls when the client has hung up."""

    def __init__(self, sock: Any, gone: Callable[[], object]) -> None:
        self._sock = sock
        self._gone = gone
        self._watcher = gevent.get_hub().loop.io(sock.fileno(), 1) if sock is not None else None

    def __enter__(self) -> None:
        if self._watcher is not None:
            self._watcher.start(self._readable)

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()

    def _readable(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        try:
            # MSG_PEEK leaves a pipelined request where it is; TLS sockets have no peek and are not watched.
            gone = not self._sock._sock.recv(1, 2)
        except OSError:
            gone = True
        if gone:
            self._gone()
