"""An upgrade from polling that has begun: the WebSocket that takes over, and the time that it has."""

from typing import Any

import gevent

from socket_server.transport.engineio import frames
from socket_server.transport.engineio.websocket import WebSocket


class Upgrade:
    """Closes its WebSocket if the upgrade is not complete in time; polling goes on then."""

    __slots__ = ("_timer", "close_code", "close_reason", "websocket")

    def __init__(self, websocket: WebSocket, timeout_s: float) -> None:
        self.websocket = websocket
        self.close_code = frames.NORMAL  # of a session that was closed during the upgrade; and the reason
        self.close_reason = ""
        self._timer: Any = None
        self.limit(timeout_s)

    def limit(self, timeout_s: float) -> None:
        """Allow this time from now on, in place of the time before."""
        self.stop()
        self._timer = gevent.get_hub().loop.timer(timeout_s)
        self._timer.start(self.websocket.close, frames.POLICY_VIOLATION, "upgrade timeout")

    def stop(self) -> None:
        """Stop the timer: the upgrade is over."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
