"""Notices that a client has closed its connection while its request waits for an answer."""

from collections.abc import Callable
from typing import Any

import gevent

_READ = 1  # libev's EV_READ, as gevent's loop.io() takes it
_PEEK = 2  # MSG_PEEK


class HangUpWatcher:
    """A context manager around the wait. TLS connections are not watched: a TLS socket cannot be peeked at."""

    def __init__(self, sock: Any, on_hang_up: Callable[[], object]) -> None:
        """sock: gevent's; None for a TLS connection."""
        self._sock = sock
        self._on_hang_up = on_hang_up
        self._watcher = gevent.get_hub().loop.io(sock.fileno(), _READ) if sock is not None else None

    def __enter__(self) -> None:
        if self._watcher is not None:
            self._watcher.start(self._readable)

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()

    def _readable(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()  # bytes of the next request would wake it again and again
        try:
            hung_up = not self._sock._sock.recv(1, _PEEK)
        except OSError:
            hung_up = True
        if hung_up:
            self._on_hang_up()
