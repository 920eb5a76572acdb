"""Accept connections on one listening socket.

gunicorn's master imports this module before gevent patches the standard library in the worker. So nothing that opens
sockets of its own may be imported here (requests, the upstream servers).
"""

import errno
import time
from typing import Any

import gevent
from gevent.server import StreamServer

from socket_server import log
from socket_server.runtime.greenlet_pool import BoundedGreenletPool
from socket_server.transport.http.connection import HttpConnection
from socket_server.transport.http.context import HttpContext
from socket_server.transport.http.handover.message import HandoverRequest
from socket_server.workers import graceful_listener
from socket_server.workers.load import WorkerLoad

_log = log.logger("Server")

# Connections accepted in one pass of the event loop (gevent's default: 100), or 1 if several workers share the port. Each
# makes the pass longer, and a publisher waits several passes for the answer to a post.
_MAX_ACCEPT = 16

_NO_DESCRIPTOR_PAUSE_S = 0.2
_NO_DESCRIPTOR_LOG_S = 10.0  # the shortest time between two log lines


class HttpServer(StreamServer):
    """Accepts connections on one listening socket, and serves each in a greenlet of the pool."""

    def __init__(
        self,
        listener: Any,
        pool: BoundedGreenletPool,
        context: HttpContext,
        base_environ: dict[str, Any],
        worker_load: WorkerLoad | None,
    ) -> None:
        """base_environ: what the environment of every request has. worker_load: None if this is the only worker."""
        super().__init__(listener, handle=self._serve, spawn=pool)  # type: ignore[call-overload]  # it is used like a Pool
        self.max_accept = _MAX_ACCEPT if worker_load is None else 1
        self._pool = pool
        self._context = context
        self._base_environ = base_environ
        self._worker_load = worker_load
        self._paused = False  # accepts nothing for a moment
        self._delayed = False  # accepts what no other worker has taken during the pause
        self._retired = False  # a successor accepts
        self._next_log_at = 0.0

    def full(self) -> bool:
        return self._pool.full()

    def _serve(self, sock: Any, address: Any) -> None:
        HttpConnection(sock, address, self._base_environ, self._context).handle()

    def serve_received(self, sock: Any, request: HandoverRequest) -> None:
        """Serve a connection that another worker has accepted."""
        connection = HttpConnection(sock, request.address, self._base_environ, self._context)
        self._pool.spawn(connection.handle, request)

    def start_accepting(self) -> None:
        """gevent calls this whenever a greenlet of the pool becomes free."""
        if self.started and not self._retired and not self._paused:
            super().start_accepting()

    def retire(self) -> None:
        """Leave all new connections to the successor."""
        self._retired = True
        self.stop_accepting()

    def do_read(self) -> Any:
        """Accept one connection and return (socket, address), or None if there is none or it is left to others."""
        if self._worker_load is not None:
            held = len(self._context.engineio_server.sockets) + len(self._context.connections)
            delay_s = self._worker_load.accept_delay_s(held, self._delayed)
            if delay_s:
                self._pause(delay_s)
                return None
        if self._context.connections.descriptors.exhausted:
            self._pause_without_descriptors()
            return None
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._pause_without_descriptors()
            return None

    def _pause_without_descriptors(self) -> None:
        if time.monotonic() > self._next_log_at:
            self._next_log_at = time.monotonic() + _NO_DESCRIPTOR_LOG_S
            _log.error("out of file descriptors: new connections wait; raise the limit or lower MAX_CONNECTIONS")
        self._pause(_NO_DESCRIPTOR_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        self._paused = True
        self.stop_accepting()
        gevent.spawn_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = False
        if self.started and not self._retired:
            self._delayed = True
            self._do_read()  # type: ignore[attr-defined]  # gevent's, missing in the type stubs
            self._delayed = False
            self.start_accepting()

    def stop_listening(self, *, drop_new: bool) -> None:
        """Accept the whole backlog, then close the listening socket: later connections are refused.

        drop_new: no other process uses the socket, so new handshakes can be dropped first, and no connection is reset.
        """
        self._worker_load = None  # no other worker is left to accept
        if drop_new and graceful_listener.drop_new_connections(self.socket):
            gevent.sleep(graceful_listener.HANDSHAKE_S)
        self.stop_accepting()
        while not self.full() and (accepted := self.do_read()) is not None:
            self.do_handle(*accepted)
        self.close()
