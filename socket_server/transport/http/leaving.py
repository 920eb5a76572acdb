"""How a connection stops being HTTP in this worker: it is handed over to another worker, or becomes a WebSocket."""

import _socket
from typing import TYPE_CHECKING, Any

from gevent import socket

from socket_server.runtime.descriptors import CountedSocket
from socket_server.transport.http.handover.message import HandoverRequest
from socket_server.transport.http.relay import Relay
from socket_server.transport.http.websocket_handshake import encode_switching, judge_handshake

if TYPE_CHECKING:
    from socket_server.transport.http.connection import HttpConnection


def hand_over(connection: "HttpConnection", tag: str, environ: dict[str, Any], alone: bool) -> bool:
    """Let the worker with this tag continue with a connection and this request. Return whether it does.

    alone: the client has sent no further request. Pipelined requests are not handed over: the connection is closed after
    this one's response, and the client must send them again (RFC 9112 section 9.3.2).
    """
    context = connection.context
    if not alone:
        environ["socket_server.keep_alive"] = False
    request = HandoverRequest.of(connection.address, environ)
    if not connection.is_tls:
        return context.handovers.send_connection(tag, connection.socket, request)
    # The TLS layer stays here.
    near, far = socket.socketpair()
    with near:
        with far:
            accepted = context.handovers.send_connection(tag, far, request)
        if accepted:
            descriptors = context.connections.descriptors
            descriptors.take()
            try:
                Relay(connection, connection.socket, near).run()
            finally:
                descriptors.give_back()
    return accepted


def upgrade(connection: "HttpConnection", environ: dict[str, Any]) -> None:
    """Answer a WebSocket handshake (RFC 6455 section 4.2). In any case the connection does not stay HTTP."""
    context = connection.context
    engineio_server = context.engineio_server
    refusal = judge_handshake(environ)
    if refusal is None and context.connections.descriptors.low:
        refusal = engineio_server.refuse_without_descriptors(environ).response()
    if refusal is None and (reason := engineio_server.judge_websocket(environ)) is not None:
        refusal = reason.response()
    if refusal is not None:
        connection.send(context.encode(refusal, close=True), environ)
        return
    switching, rest = encode_switching(environ), environ.get("socket_server.rest", b"")
    if connection.is_tls:
        connection.socket.settimeout(0)
        # The TLS layer belongs to this greenlet, which stays as long as the WebSocket.
        websocket = engineio_server.accept_websocket(environ, connection.socket, switching, rest)
        connection.busy = False
        websocket.wait_for_end()
    else:
        engineio_server.accept_websocket(environ, _detach(connection), switching, rest)


def _detach(connection: "HttpConnection") -> CountedSocket:
    """Move the file descriptor to a non-blocking socket without gevent's methods, and its count with it."""
    sock = connection.socket
    raw = CountedSocket(connection.context.connections.descriptors, sock.family, sock.type, sock.proto, sock.detach())
    connection.descriptor_moved = True
    raw.setblocking(False)
    if raw.family != _socket.AF_UNIX:
        # A notification is one small write: to wait for more of it (Nagle) would only delay it.
        raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return raw
