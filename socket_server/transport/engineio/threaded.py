"""The Engine.IO server of `flask run`: python-engineio's own, with threads. For development only."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import engineio
from engineio.exceptions import EngineIOError

from socket_server.transport.engineio import frames
from socket_server.transport.engineio.gate import Gate, Request
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.packets import Packet


class ThreadedSession:
    """python-engineio's socket with the interface of EioSocket."""

    websocket = None  # a thread of python-engineio writes to it
    max_backlog = sys.maxsize  # python-engineio's queue has no limit

    def __init__(self, socket: Any, handshake: Handshake) -> None:
        self._socket = socket
        self.sid: str = socket.sid
        self.handshake: Handshake | None = handshake
        self.address = handshake.address
        self.deadline: Any = None
        self.connection: Any = None

    @property
    def upgraded(self) -> bool:
        return bool(self._socket.upgraded)

    @property
    def closed(self) -> bool:
        return bool(self._socket.closed)

    def wait_until_sent(self) -> bool:
        while not self.closed and not self._socket.queue.empty():
            time.sleep(0.01)
        return not self.closed

    def send(self, pkt: Packet) -> bool:
        try:
            self._socket.send(pkt)
        except EngineIOError:
            return False  # it has been closed
        return True

    def close(self, reason: str | None = None, code: int = frames.NORMAL) -> None:
        """code: ignored; python-engineio sends no close code."""
        self._socket.close(wait=False, reason=reason)


class ThreadedEngineIOServer(engineio.Server):
    """python-engineio's server behind the gate. Its handlers get a session and a Handshake, as those of EngineIOServer."""

    def __init__(self, gate: Gate, ping_interval_s: float, ping_timeout_s: float, limits: Limits) -> None:
        super().__init__(
            async_mode="threading",
            logger=logging.getLogger("engineio.server"),
            cors_allowed_origins=[],
            ping_interval=ping_interval_s,
            ping_timeout=ping_timeout_s,
            transports=list(gate.transports),
            max_http_buffer_size=limits.max_message_bytes,
        )
        self.gate = gate

    def in_background(self, work: Callable[..., object], *args: Any) -> None:
        self.start_background_task(work, *args)

    def authenticated(self, session: ThreadedSession) -> None:
        """Nothing to do: here unauthenticated sessions are not closed for new ones."""

    def handle_request(self, environ: dict[str, Any], start_response: Any) -> Any:
        refusal = self.gate.judge(Request.of(environ), environ, len(self.sockets))
        if refusal is not None:
            status, headers, body = refusal.response()
            start_response(status, headers + self.gate.origins.headers(environ))
            return [body]
        return super().handle_request(environ, start_response)

    def _cors_headers(self, environ: dict[str, Any]) -> list[tuple[str, str]]:
        return self.gate.origins.headers(environ)

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False) -> Any:
        sid, *rest = args
        socket = self.sockets[sid]
        if event == "connect":
            self._correct_ping_interval(socket)
            handshake = self.gate.handshakes.read(rest[0])
            socket.connection, rest = ThreadedSession(socket, handshake), [handshake]
        # In the thread of the request, so that a client's packets are handled in order.
        return super()._trigger_event(event, socket.connection, *rest, run_async=False)

    def _correct_ping_interval(self, socket: Any) -> None:
        """Correct the OPEN packet, which waits in the queue: python-engineio cuts the interval to whole seconds."""
        socket.queue.queue[0].data["pingInterval"] = int(self.ping_interval * 1000)
