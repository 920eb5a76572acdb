"""The time between a connection's close frame and the close of its socket.

Closing at once would make the kernel answer bytes that were not read with a reset, which can destroy the last ones that
were sent (RFC 6455 section 7.1.1).
"""

from collections.abc import Callable

import gevent

LINGER_S = 2.0  # for the peer to close too
LINGER_BYTES = 1_048_576  # read and discarded in that time; more closes the socket


class Linger:
    """Counts the time and the discarded bytes of one closing connection."""

    __slots__ = ("_bytes_left", "_timer")

    def __init__(self, on_expired: Callable[[], None]) -> None:
        self._bytes_left = LINGER_BYTES
        self._timer = gevent.get_hub().loop.timer(LINGER_S)
        self._timer.start(on_expired)

    def discard(self, size: int) -> bool:
        """Count discarded bytes; return whether they are too many."""
        self._bytes_left -= size
        return self._bytes_left < 0

    def cancel(self) -> None:
        self._timer.stop()
        self._timer.close()
