"""The gunicorn worker: gevent's WSGI server with gevent-websocket's handler, which hands WebSockets over to the engine and
stops gracefully.

gunicorn's master imports this module before gevent patches the standard library in the worker, so it imports nothing that
opens sockets of its own (requests, the upstream servers).
"""

import _socket
import base64
import binascii
import hashlib
import ssl
import time
from collections.abc import Iterable
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from geventwebsocket.handler import WebSocketHandler
from gunicorn.errors import AppImportError
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import VERSION, PyWSGIHandler

from socket_server import log
from socket_server.errors import ConfigError
from socket_server.transport.gate import PATH

_log = log.logger("Server")

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)

# How long requests in flight may take after the drain, before the process ends all the same.
FINISH_S = 1.0


def accept_key(key: str) -> bytes | None:
    """Return the Sec-WebSocket-Accept of a Sec-WebSocket-Key; None for a key that is none (RFC 6455, 4.2.1 and 4.2.2)."""
    try:
        if len(base64.b64decode(key.strip(), validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key.strip().encode() + _GUID).digest())  # noqa: S324 - the RFC's choice


class Handler(WebSocketHandler, PyWSGIHandler):
    """One HTTP connection. A WebSocket upgrade under /socket.io/ is judged, answered, and its socket given away."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = PyWSGIHandler.get_environ(self)
        # For a polling request that waits: it wants to know when its client hangs up.
        environ["socket_server.sock"] = None if isinstance(self.socket, ssl.SSLSocket) else self.socket
        return environ

    def run_application(self) -> None:
        environ = self.environ
        if (
            environ.get("HTTP_UPGRADE", "").lower() == "websocket"
            and environ["PATH_INFO"].startswith(PATH)
            and environ["REQUEST_METHOD"] == "GET"
        ):
            self._upgrade()
        else:
            PyWSGIHandler.run_application(self)

    def handle_one_response(self) -> None:
        self.server.requests += 1
        try:
            super().handle_one_response()
        finally:
            self.server.requests -= 1

    def log_request(self) -> None:
        if self.server.access_log:
            PyWSGIHandler.log_request(self)

    def _upgrade(self) -> None:
        """Answer an opening handshake as RFC 6455 section 4.2 asks, and hand the socket to the engine."""
        environ, engine = self.environ, self.server.engine
        accept = accept_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""))
        asked = "upgrade" in environ.get("HTTP_CONNECTION", "").lower()
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
            version = [("Sec-WebSocket-Version", "13")]
            self._answer("426 Upgrade Required", version, b"WebSocket version 13 is spoken here\n")
            return
        if accept is None or not asked or self.request_version != "HTTP/1.1":
            self._answer("400 Bad Request", [], b"not a WebSocket handshake\n")
            return
        refusal = engine.judge_websocket(environ)
        if refusal is not None:
            self._answer(*refusal.response())
            return
        sock = self.socket
        received = _buffered(sock, self.rfile)
        self.code, self.status = 101, b"101 Switching Protocols"
        self.headers_sent = True
        self.close_connection = True
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(None)
            sock.sendall(_SWITCHING % accept)
            self._stay(environ, sock, received)
        else:
            raw = _detach(sock)
            raw.send(_SWITCHING % accept)
            engine.accept_websocket(environ, raw, received)

    def _stay(self, environ: dict[str, Any], sock: Any, received: bytes) -> None:
        """Keep this greenlet for as long as the WebSocket lives: the TLS layer belongs to it and cannot be given away."""
        sock.settimeout(0)
        websocket = self.server.engine.accept_websocket(environ, sock, received)
        websocket.ended = Event()
        websocket.ended.wait()

    def _answer(self, status: str, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        self.start_response(status, [*headers, ("Connection", "close"), ("Content-Length", str(len(body)))])
        self.close_connection = True
        self.write(body)


def _buffered(sock: Any, rfile: Any) -> bytes:
    """Return what the client has already sent behind its handshake; leaves the socket non-blocking."""
    sock.settimeout(0)
    try:
        return bytes(rfile.peek(1))
    except OSError:
        return b""


def _detach(sock: Any) -> Any:
    """Return a bare non-blocking socket for the file descriptor of a gevent one, which lets go of it."""
    raw = _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
    raw.setblocking(False)
    if raw.family != _socket.AF_UNIX:
        # A notification is one small write: waiting for more of it (Nagle) would only delay it.
        raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return raw


class Server(WSGIServer):
    """The HTTP server of one listening socket."""

    def __init__(self, *args: Any, engine: Any, access_log: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.engine = engine
        self.access_log = access_log
        self.requests = 0  # being answered now


class Worker(GeventWebSocketWorker):
    """gunicorn's gevent worker with our handler, and a stop that drains."""

    wsgi_handler = Handler
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
        engine = self.wsgi.extensions["socketio"].server.eio
        servers = [self._start(listener, engine) for listener in self.sockets]
        beat = 0.0
        while self.alive:
            if time.monotonic() - beat >= 1.0:
                self.notify()
                beat = time.monotonic()
            gevent.sleep(0.1)
        self._stop(servers, engine)

    def _start(self, listener: Any, engine: Any) -> Server:
        listener.setblocking(1)
        environ = base_environ(self.cfg)
        # SERVER_NAME is set here, or gevent would look up the host's name in the DNS while it starts.
        environ |= {"wsgi.multithread": True, "SERVER_SOFTWARE": VERSION, "SERVER_NAME": "localhost"}
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        server = Server(
            listener,
            application=self.wsgi,
            spawn=Pool(self.worker_connections),
            log=self.log,
            handler_class=self.wsgi_handler,
            environ=environ,
            engine=engine,
            access_log=bool(self.cfg.accesslog),
            **tls,
        )
        server.start()
        return server

    def _stop(self, servers: list[Server], engine: Any) -> None:
        """Let nobody new in, close transports evenly over DRAIN_SECONDS, and let requests in flight finish.

        The listening sockets stay open meanwhile: /health answers 503 "draining".
        """
        drain_s = 0.0 if self._hurry else self.wsgi.extensions["socket_server"].settings.drain_s
        engine.gate.draining = True
        _log.info("draining: connections=%d seconds=%g", len(engine.sockets), drain_s)
        drain = gevent.spawn(engine.drain, drain_s)
        while not drain.ready():
            self.notify()
            drain.join(0.5)
            if self._hurry:  # a second, impatient signal
                break
        with gevent.Timeout(FINISH_S, False):  # type: ignore[arg-type]  # False: silently
            while any(server.requests for server in servers):
                gevent.sleep(0.02)
        for server in servers:
            server.stop(timeout=0.1)
        _log.info("stopped")
