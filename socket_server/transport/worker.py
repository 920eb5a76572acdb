"""The gunicorn worker: gevent's WSGI server with gevent-websocket's handler, which hands WebSockets over to the engine and
stops gracefully.

gunicorn's master imports this module before gevent patches the standard library in the worker, so it imports nothing that
opens sockets of its own (requests, the upstream servers).
"""

import errno
import gc
import math
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from email.utils import formatdate
from typing import Any

import gevent
import orjson
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.errors import AppImportError
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import VERSION, GeventResponse

from socket_server import log
from socket_server.errors import ConfigError, SocketServerError
from socket_server.transport import door, handover
from socket_server.transport.crew import Places
from socket_server.transport.gate import PATH
from socket_server.transport.http_codec import HttpError, encode_response
from socket_server.transport.http_connection import HEAD_S, Handler
from socket_server.transport.shares import Share
from socket_server.transport.succession import Succession

_log = log.logger("Server")

# Over how long connections move to a worker that has taken over.
SUCCESSION_S = 1.0

# How long a worker goes on as ever while its successor loads, beyond DRAIN_SECONDS; gunicorn waits 5 s more than those.
LOADING_S = 2.5

# How often it is looked whether something is stored that has not gone out; less often while the inbox is down.
_CATCH_UP_EVERY_S = 0.25
_CATCH_UP_AGAIN_S = 1.0

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


class Server(WSGIServer):
    """The HTTP server of one listening socket."""

    # So many connections are accepted in one cycle of the event loop (upstream: 100); where there are several workers, one.
    # Each makes the cycle longer, and who waits for the answer to a post waits for several cycles.
    max_accept = 16

    def __init__(
        self, listener: Any, *, app: Any, pool: Pool, environ: dict[str, Any], tls: Any, access: Any, share: Share | None
    ) -> None:
        """access: gunicorn's logger, where it writes an access log; None otherwise. share: None where one worker is all."""
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
        self.engine = app.extensions["socketio"].server.eio
        self.access = access
        self.handlers: set[Handler] = set()
        self._strangers: dict[Handler, None] = {}  # those that have never sent a request, longest waiting first
        self._pool = pool
        self._most_waiting = min(MAX_WAITING, (pool.size or 0) // 2)
        self._share = share
        self._pausing = False  # it accepts nothing for a while
        self._gave_way = False  # others have had their time for what waits
        self._succeeded = False
        self._short_until = 0.0  # of file descriptors
        self._judge_head = services.judge_head

    @property
    def draining(self) -> bool:
        return bool(self.engine.gate.draining)

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

    def take(self, sock: Any, handed: handover.Handed) -> None:
        """Serve a connection that another worker has accepted."""
        self._pool.spawn(self._go_on, sock, handed)

    def _go_on(self, sock: Any, handed: handover.Handed) -> None:
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
        if self._share is not None:
            wait_s = self._share.wait_s(len(self.engine.sockets) + len(self.handlers), self._gave_way)
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
        self._share = None  # they are not left to others
        if for_good and door.keep_newcomers_out(self.socket):
            gevent.sleep(door.HANDSHAKE_S)
        self.stop_accepting()
        while not self.full() and (accepted := self.do_read()) is not None:
            self.do_handle(*accepted)
        self.close()

    def judge(self, environ: dict[str, Any]) -> tuple[int, bytes | None]:
        """Judge a request by its head: how large its body may be, or the response that refuses it."""
        if environ["PATH_INFO"].startswith(PATH):
            limit, refusal = self.engine.judge_body(environ)
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


class Worker(GeventWebSocketWorker):
    """gunicorn's gevent worker with our handler, and a stop that drains."""

    wsgi_handler = Handler
    lent = False  # its listening sockets outlive the server (door.lend)
    _hurry = False  # stop without taking DRAIN_SECONDS

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except ConfigError as error:
            raise AppImportError(str(error)) from None

    def handle_quit(self, sig: int, frame: Any) -> None:
        # SIGINT (Ctrl-C) and SIGQUIT: say goodbye to everyone at once.
        self._hurry = True
        self.alive = False

    def run(self) -> None:
        succession = Succession()
        self._share = Share(self.age)
        # What is here now stays: the collector need not look at it again. Connections leave no cycles behind, and a
        # collection that walks tens of thousands of them stalls everybody.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        gevent.config.track_greenlet_tree = False  # or each new greenlet would note who started it, and from which lines
        engine = self.wsgi.extensions["socketio"].server.eio
        servers = [self._start(listener) for listener in self.sockets]
        self._open_door(engine, servers[0])
        succession.serve()
        if self.wsgi.extensions["socket_server"].feed is None:  # which reads all that is stored
            gevent.spawn(self._catch_up)
        beat = 0.0
        succeeded = False
        while self.alive:
            if time.monotonic() - beat >= 1.0:
                self.notify()
                beat = time.monotonic()
            self._share.beat()
            gevent.sleep(0.1)
            succeeded = succession.begun()
        if succeeded:
            self._wait_while_loading(succession)
            for server in servers:
                server.leave_accepting()
        self._share.end()
        self._stop(servers, engine, succeeded)

    def _wait_while_loading(self, succession: Succession) -> None:
        """Go on as ever until the successor has loaded: whoever came meanwhile would stand at a closed door for so long."""
        ends = time.monotonic() + self.wsgi.extensions["socket_server"].settings.drain_s + LOADING_S
        while succession.loading() and time.monotonic() < ends and not self._hurry:
            self.notify()
            gevent.sleep(0.05)

    def _catch_up(self) -> None:
        """Deliver what another process stores (the worker before a reload, or the one after it), and what was stored though
        the inbox could not say so."""
        broadcaster = self.wsgi.extensions["socket_server"].broadcaster
        while self.alive:
            wait_s = _CATCH_UP_EVERY_S
            try:
                broadcaster.catch_up()
            except SocketServerError:
                wait_s = _CATCH_UP_AGAIN_S  # /health says it
            gevent.sleep(wait_s)

    def _start(self, listener: Any) -> Server:
        listener.setblocking(1)
        # Where there may be more workers than one, SIGTTIN may make them so at any time.
        several = bool(self.wsgi.extensions["socket_server"].settings.redis_url)
        environ = base_environ(self.cfg)
        # SERVER_NAME is set here, or gevent would look up the host's name in the DNS while it starts.
        environ |= {
            "wsgi.multiprocess": several,  # gevent then accepts one connection at a time
            "wsgi.multithread": True,
            "SERVER_SOFTWARE": VERSION,
            "SERVER_NAME": "localhost",
        }
        server = Server(
            listener,
            app=self.wsgi,
            pool=Places(self.worker_connections, self.wsgi.extensions["socketio"].server.eio.crew),
            environ=environ,
            tls=ssl_context(self.cfg) if self.cfg.is_ssl else None,
            access=self.log if self.cfg.accesslog else None,
            share=self._share if several else None,
        )
        server.start()
        return server

    def _open_door(self, engine: Any, server: Server) -> None:
        """Take connections whose sessions are here from the other workers: those on the same port, and after a reload the
        new ones."""
        if sys.platform != "linux":
            return  # serve.py sees to it that there are no others
        try:
            handover.Taker(engine.tag, server, engine.limits.max_message_bytes).start()
        except OSError as error:
            _log.error("other workers cannot hand over the requests of this one's sessions (%s)", error)

    def _stop(self, servers: list[Server], engine: Any, succeeded: bool) -> None:
        """Let nobody new in, close transports evenly over DRAIN_SECONDS, and let requests in flight finish.

        Unless there is a successor, the listening sockets are served meanwhile: /health answers 503 "draining".
        """
        services = self.wsgi.extensions["socket_server"]
        drain_s = 0.0 if self._hurry else services.settings.drain_s
        if succeeded:
            # Broadcasts go to the successor from now on: clients had better be there soon.
            drain_s = min(drain_s, SUCCESSION_S)
        engine.gate.draining = True
        _log.info("draining: connections=%d seconds=%g", len(engine.sockets), drain_s)
        services.broadcaster.wind_down()  # what is answered and not kept (`ttl` 0) is out before its connections end
        ends = time.monotonic() + drain_s
        drain = gevent.spawn(engine.drain, drain_s)
        while not drain.ready():
            self.notify()
            drain.join(0.5)
            if self._hurry:  # a second, impatient signal
                break
        for server in servers:
            if succeeded:
                server.close()
            else:
                server.stop_listening(for_good=not (self._hurry or self.lent or door.held_by(self.ppid, server.socket)))
        ends = max(ends, time.monotonic() + FINISH_S)
        gevent.sleep(0)  # who was the last to come in begins
        while any(server.expecting() for server in servers) and time.monotonic() < ends:
            self.notify()
            gevent.sleep(0.02)
            if self._hurry:
                ends = min(ends, time.monotonic() + FINISH_S)
        for server in servers:
            server.stop(timeout=0.1)
        services.close()
        _log.info("stopped")
