"""The HTTP side of a client: one greenlet for each open HTTP connection, until it ends, becomes a WebSocket, or goes on in
another worker."""

import _socket
import base64
import binascii
import contextlib
import hashlib
import math
import ssl
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import gevent
from gevent import socket
from geventwebsocket.handler import WebSocketHandler

from socket_server import log
from socket_server.runtime.time_slice import TimeSlice
from socket_server.transport.engineio.gate import BAD_WEBSOCKET, BAD_WEBSOCKET_VERSION, PATH
from socket_server.transport.engineio.websocket import LINGER_BYTES, LINGER_S
from socket_server.transport.http import handover
from socket_server.transport.http.codec import HttpError, RefusedError, RequestReader, encode_response

_log = log.logger("Server")

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)

_RECV_BYTES = 16_384

# A client may keep a connection open between requests for so long; a head, and then a body, must be in within this.
IDLE_S = 75.0
HEAD_S = 10.0
BODY_S = 30.0  # with an API key
STRANGERS_BODY_S = 10.0


_ERROR = (
    "500 Internal Server Error",
    [("Content-Type", "application/json")],
    b'{"error":"Internal Server Error","message":"the details are in the server\'s log"}',
)


def accept_key(key: str) -> bytes | None:
    """Return the Sec-WebSocket-Accept of a Sec-WebSocket-Key; None for a key that is none (RFC 6455 section 4.2)."""
    try:
        if len(base64.b64decode(key.strip(), validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key.strip().encode() + _GUID).digest())  # noqa: S324 - the RFC's choice


class _Clock:
    """The Date header, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def date(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._text = now, formatdate(now, usegmt=True)
        return self._text


_clock = _Clock()


class Handler(WebSocketHandler):
    """One HTTP connection: gevent-websocket's handler with its reading and parsing replaced.

    That one reads a client's every byte through Python's e-mail parser, and has neither deadlines nor limits.
    """

    def __init__(self, sock: Any, address: Any, server: Any, rfile: Any = None) -> None:
        self.socket = sock
        self.client_address = address
        self.server = server
        self.deadline = time.monotonic() + HEAD_S  # the server's watch cuts the connection after it
        self.waiting_since = time.monotonic()  # for a whole head; infinite while a request is served
        self.served = False  # it has had an answer
        self.busy = False  # a request has begun and is not yet answered
        self._status = ""
        self._headers: list[tuple[str, str]] = []

    def handle(self, handed: handover.HandoverRequest | None = None) -> None:
        """Serve requests until the connection ends, has become a WebSocket, or goes on in another worker.

        handed: the first of them, where the connection has come from another worker.
        """
        self.server.came(self)
        try:
            self._serve_all(handed)
        except OSError:
            pass  # the client has gone
        finally:
            self.server.left(self)
            self.socket = None

    def expire(self) -> None:
        """End the connection from outside: its greenlets read the end of the stream."""
        with contextlib.suppress(OSError):
            self.socket._sock.shutdown(_socket.SHUT_RDWR)  # beneath TLS, if any, which they may be waiting in

    def _serve_all(self, handed: handover.HandoverRequest | None) -> None:
        sock = self.socket
        reader: RequestReader | None = None
        in_head = in_body = False
        time_slice = TimeSlice()
        if handed is not None:
            self.busy = True
            if not self._answer([handed.environ(self._base_environ())], False, time_slice):
                return
            self.busy = False
        while data := self._receive(time_slice):
            if reader is None:  # not before there is something to read: who only connects costs little
                reader = RequestReader(self._base_environ(), self.server.judge)
            try:
                environs = reader.feed(data)
            except HttpError as error:
                self._refuse(self.server.encode_error(error))
                return
            except RefusedError as refused:
                self._refuse(refused.response)
                return
            self.busy = True
            if not self._answer(environs, reader.partial, time_slice):
                return
            if environs:
                in_head = in_body = False
            self.busy = reader.partial
            if reader.in_body and not in_body:
                in_body = True
                if reader.trusted:
                    self.waiting_since = math.inf
                    self.server.known(self)
                self.deadline = time.monotonic() + (BODY_S if reader.trusted else STRANGERS_BODY_S)
                if reader.continue_wanted:
                    sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif reader.partial and not in_head:
                in_head = True
                self.deadline = time.monotonic() + HEAD_S

    def _answer(self, environs: list[dict[str, Any]], partial: bool, time_slice: TimeSlice) -> bool:
        """Answer requests in their order; return whether the connection goes on as HTTP, and here.

        partial: one more has begun.
        """
        for number, environ in enumerate(environs):
            if number:
                time_slice.maybe_yield()
            self.deadline = self.waiting_since = math.inf
            if not self.served:
                self.server.known(self)
            tag = self.server.engineio_server.elsewhere(environ)
            if tag is not None and self._hand_over(tag, environ, alone=number + 1 == len(environs) and not partial):
                return False
            if not self._serve(environ):
                return False
            self.served = True
            self.waiting_since = time.monotonic()
            self.deadline = self.waiting_since + IDLE_S
        return True

    def _hand_over(self, tag: str, environ: dict[str, Any], alone: bool) -> bool:
        """Let another worker go on with this connection, and this request of it; return whether it does.

        Requests that a client has sent right behind (not alone) do not go along: its connection is closed after this one's
        answer, and it has to send them again (RFC 9112 section 9.3.2).
        """
        if not alone:
            environ["socket_server.keep_alive"] = False
        handed = handover.HandoverRequest.of(self.client_address, environ)
        sock = self.socket
        if not isinstance(sock, ssl.SSLSocket):
            return handover.send_connection(tag, sock, handed)
        # The TLS layer stays here, and carries the bytes to and fro.
        near, far = socket.socketpair()
        with near:
            with far:
                taken = handover.send_connection(tag, far, handed)
            if taken:
                self._carry(near)
        return taken

    def _carry(self, near: Any) -> None:
        """Carry bytes between a TLS client and the worker that goes on with it, until one of them has ended."""
        outwards = gevent.spawn(self._carry_outwards, near)
        try:
            with contextlib.suppress(OSError):
                while data := self.socket.recv(_RECV_BYTES):
                    near.sendall(data)
            near.shutdown(_socket.SHUT_WR)
            outwards.join(LINGER_S)
        finally:
            outwards.kill()

    def _carry_outwards(self, near: Any) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(_RECV_BYTES):
                self.deadline = time.monotonic() + IDLE_S  # a client that takes nothing for so long is gone
                self.socket.sendall(data)
                self.deadline = math.inf
        self.deadline = time.monotonic() + LINGER_S  # for the client to end too

    def _receive(self, time_slice: TimeSlice) -> bytes:
        """Return the next bytes; b"" at the end. Who sends without a pause gives way after its turn; who has waited for its
        bytes goes on at once."""
        sock = self.socket
        if isinstance(sock, ssl.SSLSocket):
            time_slice.maybe_yield()
            data: bytes = sock.recv(_RECV_BYTES)
            return data
        try:
            data = sock._sock.recv(_RECV_BYTES)
        except BlockingIOError:
            data = sock.recv(_RECV_BYTES)
            time_slice.renew()
        else:
            time_slice.maybe_yield()
        return data

    def _base_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = self.server.get_environ()
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"] = self.client_address[0]
            environ["REMOTE_PORT"] = str(self.client_address[1])
        # For a polling request that waits: it wants to know when its client hangs up.
        environ["socket_server.sock"] = None if isinstance(self.socket, ssl.SSLSocket) else self.socket
        return environ

    def _serve(self, environ: dict[str, Any]) -> bool:
        """Answer one request; return whether the connection goes on as HTTP."""
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket" and environ["PATH_INFO"].startswith(PATH):
            return self._upgrade(environ)
        server = self.server
        started = time.time()
        close = not environ["socket_server.keep_alive"] or "socket_server.rest" in environ or server.draining
        try:
            status, headers, body = self._run(environ)
            response = encode_response(status, headers, body, _clock.date(), close)
        except Exception:
            _log.exception("unexpected error in a request")
            status, headers, body = _ERROR
            response = encode_response(status, headers, body, _clock.date(), close)
        self.deadline = time.monotonic() + BODY_S
        self._send(response)
        if server.access is not None:
            server.log_access(environ, status, headers, len(body), started)
        return not close

    def _run(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        """Run the application; return its whole response."""
        result = self.server.application(environ, self._start)
        try:
            body = result[0] if isinstance(result, list) and len(result) == 1 else b"".join(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return self._status, self._headers, b"" if environ["REQUEST_METHOD"] == "HEAD" else body

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        self._status, self._headers = status, headers

    def _send(self, data: bytes) -> None:
        sent = self.socket.send(data)
        if sent < len(data):
            self.socket.sendall(memoryview(data)[sent:])

    def _refuse(self, response: bytes) -> None:
        """Send a last response and let the client read it: closing over unread bytes would reset the connection."""
        sock = self.socket
        self.deadline = time.monotonic() + LINGER_S
        self._send(response)
        if not isinstance(sock, ssl.SSLSocket):
            sock.shutdown(_socket.SHUT_WR)
        left = LINGER_BYTES
        while left > 0 and (data := sock.recv(_RECV_BYTES)):
            left -= len(data)

    # The WebSocket handshake (RFC 6455 section 4.2)

    def _upgrade(self, environ: dict[str, Any]) -> bool:
        engineio_server = self.server.engineio_server
        refusal = judge_handshake(environ)
        if refusal is None and (reason := engineio_server.judge_websocket(environ)) is not None:
            refusal = reason.response()
        if refusal is not None:
            self._send(encode_response(*refusal, _clock.date(), close=True))
            return False
        switching = _SWITCHING % (accept_key(environ["HTTP_SEC_WEBSOCKET_KEY"]) or b"")
        received = environ.get("socket_server.rest", b"")
        sock = self.socket
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(0)
            # The TLS layer belongs to this greenlet and cannot be given away: it stays as long as the WebSocket.
            websocket = engineio_server.accept_websocket(environ, sock, switching, received)
            self.busy = False
            websocket.wait_for_end()
        else:
            engineio_server.accept_websocket(environ, _detach(sock), switching, received)
        return False


def judge_handshake(environ: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]], bytes] | None:
    """Return the response that refuses what is no WebSocket handshake; None: it is one."""
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        status, headers, body = BAD_WEBSOCKET_VERSION.response()
        return status, [*headers, ("Sec-WebSocket-Version", "13")], body
    if (
        environ["REQUEST_METHOD"] != "GET"
        or environ["SERVER_PROTOCOL"] != "HTTP/1.1"
        or "upgrade" not in environ.get("HTTP_CONNECTION", "").lower()
        or accept_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")) is None
    ):
        return BAD_WEBSOCKET.response()
    return None


def _detach(sock: Any) -> Any:
    """Return a bare non-blocking socket for the file descriptor of a gevent one, which lets go of it."""
    raw = _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
    raw.setblocking(False)
    if raw.family != _socket.AF_UNIX:
        # A notification is one small write: waiting for more of it (Nagle) would only delay it.
        raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return raw
