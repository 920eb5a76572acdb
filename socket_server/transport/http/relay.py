"""Carry bytes between a TLS client and the worker that serves it: the TLS layer cannot be handed over."""

import contextlib
import time
from typing import Any

import gevent
from gevent import socket

_READ_BYTES = 16_384

LINGER_S = 2.0  # how long the client may take to close after the other worker has closed
IDLE_S = 75.0  # a client that takes nothing for this long is gone


class Relay:
    """Copies bytes both ways until one side ends. `connection` has a deadline that ends it (OpenConnections)."""

    def __init__(self, connection: Any, client: Any, near: Any) -> None:
        """client: the TLS socket. near: this worker's end of a socket pair; the other worker has the far one."""
        self._connection = connection
        self._client = client
        self._near = near

    def run(self) -> None:
        outwards = gevent.spawn(self._copy_outwards)
        try:
            with contextlib.suppress(OSError):
                while data := self._client.recv(_READ_BYTES):
                    self._near.sendall(data)
            self._near.shutdown(socket.SHUT_WR)
            outwards.join(LINGER_S)
        finally:
            outwards.kill()

    def _copy_outwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._near.recv(_READ_BYTES):
                self._connection.deadline = time.monotonic() + IDLE_S
                self._client.sendall(data)
                self._connection.deadline = float("inf")
        self._connection.deadline = time.monotonic() + LINGER_S
