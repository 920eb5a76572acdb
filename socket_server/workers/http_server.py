"""The HTTP server of one listening socket: accepts connections, and ends those that are overdue or too many.

gunicorn's master imports this module before gevent patches the standard library in the worker, so it imports nothing that
opens sockets of its own (requests, the upstream servers).
"""

import errno
import math
import time
from collections.abc import Iterable
from datetime import timedelta
from email.utils import formatdate
from typing import Any

import gevent
import orjson
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from gunicorn.workers.ggevent import GeventResponse

from socket_server import log
from socket_server.transport.engineio.gate import PATH
from socket_server.transport.http import handover
from socket_server.transport.http.codec import HttpError, encode_response
from socket_server.transport.http.connection import HEAD_S, Handler
from socket_server.workers import graceful_listener
from socket_server.workers.load import WorkerLoad

_log = log.logger("Server")

# How long requests in flight may take after the drain, before the process ends all the same; longer where the drain did not
# need its time. So long the first request of a new connection is waited for, too.
FINISH_S = 1.0


# How often overdue HTTP connections are looked for.
_WATCH_S = 0.5

# So many are cut together, and then others have their turn.
_CUT_TOGETHER = 16
_CUT_PAUSE_S = 0.001

# Connections that have sent no whole head yet, or none since their last answer. Beyond so many the longest waiting are cut:
# each holds a greenlet, and strangers with nothing to say must not take the places of those who have.
MAX_WAITING = 1_000

_PHRASES = {"413": "Request Entity Too Large"}  # as Flask's own errors are named


class HttpServer(WSGIServer):
    """The HTTP server of one listening socket."""

    # So many connections are accepted in one cycle of the event loop (upstream: 100); where there are several workers, one.
    # Each makes the cycle longer, and who waits for the answer to a post waits for several cycles.
    max_accept = 16

    def __init__(
        self,
        listener: Any,
        *,
        app: Any,
        pool: Pool,
        environ: dict[str, Any],
        tls: Any,
        access: Any,
        worker_load: WorkerLoad | None,
    ) -> None:
        """access: gunicorn's logger if it writes an access log, else None. worker_load: None if this is the only worker."""
        super().__init__(
            listener,
            application=app,
            handler_class=Handler,
            spawn=pool,
            environ=environ,
            **({"ssl_context": tls} if tls else {}),
        )
        self._tls = tls
        services = app.extensions["socket_server"]
        self.engineio_server = app.extensions["socketio"].server.eio
        self.access = access
        self.handlers: set[Handler] = set()
        self._strangers: dict[Handler, None] = {}  # those that have never sent a request, longest waiting first
        self._pool = pool
        self._most_waiting = min(MAX_WAITING, (pool.size or 0) // 2)
        self._worker_load = worker_load
        self._pausing = False  # it accepts nothing for a while
        self._gave_way = False  # others have had their time for what waits
        self._succeeded = False
        self._short_until = 0.0  # of file descriptors
        self._judge_head = services.judge_head

    @property
    def draining(self) -> bool:
        return bool(self.engineio_server.gate.draining)

    def expecting(self) -> bool:
        """Whether a request is under way, or soon will be: who has only just connected has a reason."""
        just_now = time.monotonic() - FINISH_S
        return any(each.busy or (not each.served and each.waiting_since > just_now) for each in self.handlers)

    def came(self, handler: Handler) -> None:
        """Count a connection among those that have sent nothing yet; of too many the one that has waited longest goes.

        At once, and not with the next look of the watch: until then thousands could come, each of which takes 10 KB, and
        thousands would have to go together while everybody else waits.
        """
        self.handlers.add(handler)
        self._strangers[handler] = None
        if len(self._strangers) > self._most_waiting:
            longest = next(iter(self._strangers))
            del self._strangers[longest]
            longest.expire()

    def known(self, handler: Handler) -> None:
        """A connection has sent a request, or at least an API key."""
        self._strangers.pop(handler, None)

    def left(self, handler: Handler) -> None:
        """A connection has ended, or has become a WebSocket."""
        self.handlers.discard(handler)
        self._strangers.pop(handler, None)

    def start(self) -> None:
        super().start()
        gevent.spawn(self._watch)

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Shake hands in time, then serve (TLS)."""
        wrapped = None
        with gevent.Timeout(HEAD_S, False):  # type: ignore[arg-type]  # False: silently
            try:
                wrapped = self._tls.wrap_socket(client_socket, server_side=True)
            except OSError:
                pass  # no TLS, or not ours: the client's business
        if wrapped is None:
            return
        try:
            self.handle(wrapped, address)
        finally:
            wrapped.close()

    def take(self, sock: Any, handed: handover.HandoverRequest) -> None:
        """Serve a connection that another worker has accepted."""
        self._pool.spawn(self._go_on, sock, handed)

    def _go_on(self, sock: Any, handed: handover.HandoverRequest) -> None:
        with sock:
            Handler(sock, handed.address, self).handle(handed)

    def start_accepting(self) -> None:
        if self.started and not self._succeeded and not self._pausing:
            super().start_accepting()

    def leave_accepting(self) -> None:
        """Leave all new connections to the worker that has come in this one's place."""
        self._succeeded = True
        self.stop_accepting()

    def do_read(self) -> Any:
        """Accept a connection, unless it is for others to do so.

        Where the process has no file descriptor left, wait a little and say so once a while.
        """
        if self._worker_load is not None:
            wait_s = self._worker_load.accept_delay_s(
                len(self.engineio_server.sockets) + len(self.handlers), self._gave_way
            )
            if wait_s:
                self._pause(wait_s)
                return None
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if time.monotonic() > self._short_until:
                self._short_until = time.monotonic() + 10
                _log.error("out of file descriptors: new connections wait; raise the limit or lower MAX_CONNECTIONS")
            self._pause(0.2)
            return None

    def _pause(self, seconds: float) -> None:
        """Accept nothing for so long, and then what is left."""
        self._pausing = True
        self.stop_accepting()
        gevent.spawn_later(seconds, self._accept_what_is_left)

    def _accept_what_is_left(self) -> None:
        self._pausing = False
        if self.started and not self._succeeded:
            self._gave_way = True
            self._do_read()  # type: ignore[attr-defined]  # upstream's own, which the type stubs leave out
            self._gave_way = False
            self.start_accepting()

    def stop_listening(self, *, for_good: bool) -> None:
        """Take in who stands in line already, and close the door: who comes later is refused, and so can go elsewhere.

        for_good: nobody else goes on with this socket.
        """
        self._worker_load = None  # they are not left to others
        if for_good and graceful_listener.keep_newcomers_out(self.socket):
            gevent.sleep(graceful_listener.HANDSHAKE_S)
        self.stop_accepting()
        while not self.full() and (accepted := self.do_read()) is not None:
            self.do_handle(*accepted)
        self.close()

    def judge(self, environ: dict[str, Any]) -> tuple[int, bytes | None]:
        """Judge a request by its head: how large its body may be, or the response that refuses it."""
        if environ["PATH_INFO"].startswith(PATH):
            limit, refusal = self.engineio_server.judge_body(environ)
        else:
            limit, refusal = self._judge_head(environ)
        if refusal is None:
            return limit, None
        status, headers, body = refusal
        return 0, encode_response(status, headers, body, formatdate(usegmt=True), close=True)

    def encode_error(self, error: HttpError) -> bytes:
        """Return the response to a request that is none."""
        code, _, phrase = error.status.partition(" ")
        body = orjson.dumps({"error": _PHRASES.get(code, phrase), "message": error.message})
        headers = [("Content-Type", "application/json")]
        return encode_response(error.status, headers, body, formatdate(usegmt=True), close=True)

    def log_access(self, environ: dict[str, Any], status: str, headers: Any, sent: int, started: float) -> None:
        """Write gunicorn's access log, where one is configured."""
        request_headers = [(name[5:].replace("_", "-"), text) for name, text in environ.items() if name[:5] == "HTTP_"]
        taken = timedelta(seconds=time.time() - started)
        self.access.access(GeventResponse(status, headers, sent), request_headers, environ, taken)

    def _watch(self) -> None:
        """End the connections whose deadline is over (heads and bodies that trickle in, long idleness), and the longest
        waiting of too many, those between two requests among them."""
        while self.started:
            gevent.sleep(_WATCH_S)
            now = time.monotonic()
            self._cut(each for each in list(self.handlers) if each.deadline < now)
            waiting = [each for each in self.handlers if each.waiting_since < math.inf]
            if len(waiting) > self._most_waiting:
                # Who has never sent a request goes first: a back end's kept connection is worth more than a stranger's.
                waiting.sort(key=lambda each: (each.served, each.waiting_since))
                self._cut(each for each in waiting[: len(waiting) - self._most_waiting] if each.waiting_since < math.inf)

    def _cut(self, handlers: Iterable[Handler]) -> None:
        """End connections, a few at a time: others are served in between, and some are gone or served by then.

        A turn by the clock would be too long. To shut a connection down is quick; what takes longer is the end of its own
        greenlet, and those of one turn all come together behind it.
        """
        cut = 0
        for handler in handlers:
            if handler in self.handlers:
                handler.expire()
                cut += 1
                if cut % _CUT_TOGETHER == 0:
                    gevent.sleep(_CUT_PAUSE_S)
