"""One HTTP connection: a greenlet that serves its requests until it ends, becomes a WebSocket, or is handed over."""

import _socket
import contextlib
import math
import ssl
import time
from typing import Any

from socket_server import log
from socket_server.runtime.time_slice import TimeSlice
from socket_server.transport.engineio.gate import PATH
from socket_server.transport.engineio.linger import LINGER_BYTES, LINGER_S
from socket_server.transport.http.context import HttpContext
from socket_server.transport.http.errors import HttpError, RefusedError
from socket_server.transport.http.handover.message import HandoverRequest
from socket_server.transport.http.leaving import hand_over, upgrade
from socket_server.transport.http.opening import read_proxy_header, start_tls
from socket_server.transport.http.request_reader import RequestReader
from socket_server.transport.http.response import Headers, Response

_log = log.logger("Server")

_RECV_BYTES = 16_384

# Longest time for a body, and for the client to take a response.
TRUSTED_BODY_S = 30.0  # of a request with an API key
BODY_S = 10.0

_INTERNAL_ERROR: Response = (
    "500 Internal Server Error",
    [("Content-Type", "application/json")],
    b'{"error":"Internal Server Error","message":"the details are in the server\'s log"}',
)
_BAD_PROXY_HEADER = HttpError("400 Bad Request", "the PROXY header is malformed")
_TIMEOUT = HttpError("408 Request Timeout", "the request was not complete in time")


class HttpConnection:
    """One HTTP connection, over TCP, TLS or a Unix socket."""

    def __init__(self, sock: Any, address: Any, base_environ: dict[str, Any], context: HttpContext) -> None:
        """sock: a gevent socket, which the connection closes. base_environ: what every request to this listener has."""
        self.socket = sock
        self.address = address
        self._base_environ = base_environ
        self.context = context
        self._connections = context.connections
        self._reader: RequestReader | None = None
        self._time_slice = TimeSlice()
        self._receiving = True  # it reads and writes nothing, so that time_out() may write
        self._status = ""
        self._headers: Headers = []
        # For OpenConnections.
        self.opened_at = time.monotonic()
        self.deadline = self.opened_at + context.head_timeout_s
        self.busy = False
        self.descriptor_moved = False

    def handle(self, received: HandoverRequest | None = None) -> None:
        """Serve the connection to its end. received: its first request, if it comes from another worker."""
        self._connections.add(self)
        try:
            if received is None:
                self._serve_all(self._open())
            else:
                self.busy = True
                if self._answer([received.environ(self._environ())], partial=False):
                    self.busy = False
                    self._serve_all(b"")
        except OSError:
            pass  # the client has gone
        finally:
            self._connections.remove(self)
            self.socket.close()

    def end(self) -> None:
        """Shut the connection down from another greenlet; its own then reads the end of the stream. Does not block."""
        with contextlib.suppress(OSError):
            self.socket._sock.shutdown(_socket.SHUT_RDWR)  # below TLS, whose handshake may be in progress

    def time_out(self) -> None:
        """End the connection. Over plain TCP, half a request is answered with a 408 first. Does not block."""
        reader = self._reader
        if self._receiving and reader is not None and reader.partial and not self.is_tls:
            with contextlib.suppress(OSError):
                self.socket._sock.send(self.context.encode_error(_TIMEOUT, reader.environ_so_far()))
        self.end()

    @property
    def is_tls(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)

    def _open(self) -> bytes:
        """Read what comes before the first request. Return bytes that have been read of that request."""
        context, received = self.context, b""
        if context.proxy_protocol is not None and context.proxy_protocol.applies_to(self.address):
            try:
                client, received = read_proxy_header(self.socket, context.proxy_protocol)
            except ValueError:
                self._refuse(context.encode_error(_BAD_PROXY_HEADER, {}))
                raise ConnectionAbortedError from None
            self.address = client or self.address
        if context.tls is not None:
            self.socket = start_tls(self.socket, context.tls)
            self.socket.do_handshake()
        return received

    # Requests

    def _serve_all(self, received: bytes) -> None:
        """Serve requests. received: bytes of the first one."""
        in_head = in_body = False
        while data := received or self._receive():
            received = b""
            reader = self._reader
            if reader is None:  # made when there is something to read, so that a silent client costs little
                reader = self._reader = RequestReader(self._environ(), self.context.judge)
            try:
                environs = reader.feed(data)
            except HttpError as error:
                self._refuse(self.context.encode_error(error, reader.environ_so_far()))
                return
            except RefusedError as refused:
                self._refuse(refused.response)
                return
            self.busy = True
            if not self._answer(environs, reader.partial):
                return
            if environs:
                in_head = in_body = False
            self.busy = reader.partial
            if reader.in_body and not in_body:
                in_body = True
                if reader.trusted:
                    self._connections.served(self)
                self.deadline = time.monotonic() + (TRUSTED_BODY_S if reader.trusted else BODY_S)
                if reader.continue_wanted:
                    self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif reader.partial and not in_head:
                in_head = True
                self.deadline = min(self.deadline, time.monotonic() + self.context.head_timeout_s)

    def _answer(self, environs: list[dict[str, Any]], partial: bool) -> bool:
        """Answer requests in their order. Return whether the connection stays HTTP, and here.

        partial: a part of another request follows them.
        """
        for number, environ in enumerate(environs, 1):
            if number > 1:
                self._time_slice.maybe_yield()
            self._receiving = False
            self.deadline = math.inf
            self._connections.served(self)
            tag = self.context.engineio_server.elsewhere(environ)
            if tag is not None and hand_over(self, tag, environ, alone=number == len(environs) and not partial):
                return False
            if not self._serve(environ):
                return False
            self._connections.idle(self)
            self.deadline = time.monotonic() + self.context.idle_timeout_s
            self._receiving = True
        return True

    def _serve(self, environ: dict[str, Any]) -> bool:
        """Answer one request. Return whether the connection stays open as HTTP."""
        context = self.context
        scarce = "socket_server.trusted" not in environ and self._connections.scarce
        if environ["PATH_INFO"].startswith(PATH) and "socket_server.percent_encoded" not in environ:
            if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
                upgrade(self, environ)
                return False
            if scarce and self._connections.descriptors.low and "sid=" not in environ["QUERY_STRING"]:
                status, headers, body = context.engineio_server.refuse_without_descriptors(environ).response()
                self.send(context.encode((status, headers + context.cors_headers(environ), body), close=True), environ)
                return False
        started = time.time()
        close = scarce or not environ["socket_server.keep_alive"] or "socket_server.rest" in environ or context.draining
        try:
            status, headers, body = self._run(environ)
            response = context.encode((status, headers, body), close)
        except Exception:
            _log.exception("unexpected error in a request")
            status, headers, body = _INTERNAL_ERROR
            response = context.encode(_INTERNAL_ERROR, close)
        self.send(response, environ)
        if context.log_access is not None:
            context.log_access(environ, status, headers, len(body), started)
        return not close

    def _run(self, environ: dict[str, Any]) -> Response:
        """Run the application. Return its whole response."""
        result = self.context.application(environ, self._start_response)
        try:
            body = result[0] if isinstance(result, list) and len(result) == 1 else b"".join(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return self._status, self._headers, b"" if environ["REQUEST_METHOD"] == "HEAD" else body

    def _start_response(self, status: str, headers: Headers, exc_info: Any = None) -> None:
        self._status, self._headers = status, headers

    # Bytes

    def _environ(self) -> dict[str, Any]:
        """Return what every environment of this connection has."""
        environ = self._base_environ.copy()
        if isinstance(self.address, tuple) and self.address[0]:
            environ["REMOTE_ADDR"] = self.address[0]
            environ["REMOTE_PORT"] = str(self.address[1])
        # A poll that waits notices by it that the client has closed.
        environ["socket_server.sock"] = None if self.is_tls else self.socket
        return environ

    def _receive(self) -> bytes:
        """Return the next bytes; b"" at the end.

        A client that sends without a pause gets a time slice; one whose bytes had to be waited for continues at once.
        """
        sock = self.socket
        if self.is_tls:
            self._time_slice.maybe_yield()
            data: bytes = sock.recv(_RECV_BYTES)
            return data
        try:
            data = sock._sock.recv(_RECV_BYTES)
        except BlockingIOError:
            data = sock.recv(_RECV_BYTES)
            self._time_slice.renew()
        else:
            self._time_slice.maybe_yield()
        return data

    def send(self, data: bytes, environ: dict[str, Any]) -> None:
        """Send a response. A client that does not take it counts as waiting, unless it has an API key."""
        trusted = "socket_server.trusted" in environ
        self.deadline = time.monotonic() + (TRUSTED_BODY_S if trusted else BODY_S)
        sent = self.socket.send(data)
        if sent < len(data):
            if not trusted:
                self._connections.idle(self)
            self.socket.sendall(memoryview(data)[sent:])

    def _refuse(self, response: bytes) -> None:
        """Send a last response and read on for a moment: closing over unread bytes would reset the connection."""
        sock = self.socket
        self._receiving = False
        self.deadline = time.monotonic() + LINGER_S
        sock.sendall(response)
        if not self.is_tls:
            sock.shutdown(_socket.SHUT_WR)
        left = LINGER_BYTES
        while left > 0 and (data := sock.recv(_RECV_BYTES)):
            left -= len(data)
