"""The Socket.IO server (protocol 5): the default namespace over either Engine.IO server, and its Flask-SocketIO face.

Source: github.com/socketio/socket.io-protocol. A malformed packet closes the connection, as on the Node.js server.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import flask
import flask_socketio
import gevent.monkey
import socketio
from engineio.packet import Packet as EnginePacket

from socket_server import log
from socket_server.runtime.deadlines import Deadlines
from socket_server.transport.engineio.gate import PATH, Gate
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet
from socket_server.transport.socketio.rooms import Rooms

_log = log.logger("Socket.IO")

# Under threads the eio_socket is upstream's, which drops what is unsent when it closes: it gets this long to send it.
_THREADED_GOODBYE_S = 2.0

_DISCONNECT = Packet(b"41")

# Between the name of a node and the rest of a session's id: in neither of them, and the same in every URL.
NODE_ENDS = "~"


def on_gevent() -> bool:
    """Whether this process runs on gevent (the gunicorn worker) rather than on threads (`flask run`)."""
    return bool(gevent.monkey.is_module_patched("socket"))


class SocketServer(socketio.Server):
    """Connections, their events and acknowledgements; everything it sends goes out through the eio_socket's `send`."""

    def __init__(
        self,
        gate: Gate,
        limits: Limits,
        deadlines: Deadlines,
        pid_for: Callable[[Any], str],
        ping_interval_s: float,
        ping_timeout_s: float,
        upgraded: Callable[[Connection], object],
        node: str = "",
    ) -> None:
        """pid_for: the `pid` of the CONNECT reply, given the handshake's `auth`. upgraded: told of a connection whose
        transport is now a WebSocket. node: the name of this node, where there are several."""
        self._limits = limits
        self._pid_for = pid_for
        self._deadlines = deadlines
        self.rooms_of = Rooms()
        super().__init__(
            client_manager=self.rooms_of,
            logger=logging.getLogger("socketio.server"),
            always_connect=True,
            async_handlers=False,
            gate=gate,
            limits=limits,
            ping_interval_s=ping_interval_s,
            ping_timeout_s=ping_timeout_s,
        )
        self.eio.on_upgraded = upgraded
        if node:
            self.eio.sids_begin = f"{node}{NODE_ENDS}"

    def _engineio_server_class(self) -> Callable[..., Any]:
        if not on_gevent():
            from socket_server.transport.engineio.threaded import ThreadedEngineIOServer

            return lambda async_handlers, **options: ThreadedEngineIOServer(**options)
        from socket_server.transport.engineio.server import EngineIOServer

        return lambda async_handlers, **options: EngineIOServer(**options)

    # From the eio_socket

    def _handle_eio_connect(self, eio_socket: Any, handshake: Handshake) -> None:
        eio_socket.connection = None
        eio_socket.handshake = handshake
        eio_socket.deadline = self._deadlines.after(self._limits.auth_timeout_s, lambda: self._connect_overdue(eio_socket))

    def _connect_overdue(self, eio_socket: Any) -> None:
        if eio_socket.connection is None and not eio_socket.closed:
            _log.info("closed: no CONNECT within %g s, address=%s", self._limits.auth_timeout_s, eio_socket.address)
            eio_socket.close(reason="connect timeout")

    def _handle_eio_message(self, eio_socket: Any, data: str | bytes) -> None:
        try:
            self._dispatch(eio_socket, data)
        except (ValueError, RecursionError) as error:
            _log.info("closed: bad packet (%s)", error)
            eio_socket.close(reason="parse error")

    def _dispatch(self, eio_socket: Any, data: str | bytes) -> None:
        connection: Connection | None = eio_socket.connection
        if connection is not None and connection.partial is not None:
            packet, attachments = connection.partial
            if not isinstance(data, bytes):
                raise ValueError("text instead of a binary attachment")
            attachments.append(data)
            if sum(map(len, attachments)) > self._limits.max_message_bytes:
                raise ValueError("attachments larger than a message may be")
            if len(attachments) == packet.attachments:
                connection.partial = None
                self._handle(connection, packet, packets.attach(packet.data, attachments))
            return
        if not isinstance(data, str):
            raise ValueError("binary attachment of nothing")
        packet = packets.decode_socket_packet(data)
        if packet.namespace != "/":
            self._refuse_namespace(eio_socket, packet)
        elif packet.kind == packets.CONNECT:
            if connection is not None:
                raise ValueError("second CONNECT")
            self._connect(eio_socket, packet.data)
        elif connection is None:
            raise ValueError("packet before CONNECT")
        elif packet.attachments:
            connection.partial = (packet, [])
        else:
            self._handle(connection, packet, packet.data)

    def _refuse_namespace(self, eio_socket: Any, packet: packets.SocketPacket) -> None:
        if packet.kind == packets.CONNECT:
            refusal = '{"message":"Invalid namespace"}'
            eio_socket.send(Packet(f"44{packet.namespace},{refusal}".encode()))

    def _connect(self, eio_socket: Any, auth: Any) -> None:
        eio_socket.deadline.cancel()
        connection = Connection(self.eio.generate_id(), eio_socket, eio_socket.handshake, self._pid_for(auth))
        eio_socket.connection = connection
        self.rooms_of.add(connection)
        connection.send(packets.encode_connect(connection.sid, connection.pid))
        try:
            self._trigger_event("connect", "/", connection, auth)
        finally:
            connection.handshake = eio_socket.handshake = None

    def _handle(self, connection: Connection, packet: packets.SocketPacket, data: Any) -> None:
        if packet.kind == packets.DISCONNECT:
            self.ended(connection, "client namespace disconnect")
            # There is no other namespace: a client that stays on without one would hold its place for nothing.
            self._close(connection, "client namespace disconnect")
        elif packet.kind in (packets.ACK, packets.BINARY_ACK):
            self.manager.trigger_callback(connection.sid, packet.id, data)
        else:
            answer = self._trigger_event(data[0], "/", connection, *data[1:])
            if packet.id is not None and answer is not self.not_handled:
                self._acknowledge(connection, packet.id, answer)

    def _acknowledge(self, connection: Connection, number: int, answer: Any) -> None:
        arguments = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
        encoded = socketio.packet.Packet(socketio.packet.ACK, data=arguments, id=number).encode()
        for part in encoded if isinstance(encoded, list) else [encoded]:
            connection.eio_socket.send(packets.wrap(EnginePacket(int(packets.MESSAGE), part)))

    def _handle_eio_disconnect(self, eio_socket: Any, reason: str) -> None:
        eio_socket.deadline.cancel()
        connection, eio_socket.connection = eio_socket.connection, None  # no cycle is left for the garbage collector
        if connection is not None:
            self.ended(connection, reason)

    def ended(self, connection: Connection, reason: str) -> None:
        """Let a connection go and tell its handler, once."""
        if self.rooms_of.remove(connection):
            self._trigger_event("disconnect", "/", connection, reason)

    def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        handler = self.handlers["/"].get(event)
        return self.not_handled if handler is None else handler(*args)

    # Outwards

    def disconnect_connection(self, connection: Connection, reason: str = "server namespace disconnect") -> None:
        """Send DISCONNECT, after which the official client does not come back by itself, and close the transport."""
        if connection.sid not in self.rooms_of.connections:
            return
        connection.send(_DISCONNECT)
        self.ended(connection, reason)
        self._close(connection, reason)

    def _close(self, connection: Connection, reason: str) -> None:
        eio_socket: Any = connection.eio_socket
        if on_gevent():
            eio_socket.close(reason=reason)
        else:
            self._deadlines.after(_THREADED_GOODBYE_S, lambda: eio_socket.close(reason=reason))

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """The upstream entry: disconnect by sid."""
        connection = self.rooms_of.connections.get(sid)
        if connection is not None:
            self.disconnect_connection(connection)


class Middleware:
    """Sends what is under /socket.io/ to the Engine.IO server and all else to Flask.

    direct: (method, path) -> the WSGI application that a Flask route of the same path runs too; where microseconds count,
    it is called without the request context, routing and hooks around it.
    """

    def __init__(
        self, engineio_server: Any, wsgi_app: Callable[..., Any], direct: Mapping[tuple[str, str], Callable[..., Any]]
    ) -> None:
        self._engineio_server = engineio_server
        self._wsgi_app = wsgi_app
        self._direct = direct

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if "socket_server.percent_encoded" in environ:  # none of the paths below is
            return self._wsgi_app(environ, start_response)
        path = environ["PATH_INFO"]
        endpoint = self._direct.get((environ["REQUEST_METHOD"], path))
        if endpoint is not None:
            return endpoint(environ, start_response)
        if path.startswith(PATH):
            return self._engineio_server.handle_request(environ, start_response)
        return self._wsgi_app(environ, start_response)


class SocketIO(flask_socketio.SocketIO):
    """Flask-SocketIO on our server.

    Its handlers are registered as ever (`@socketio.on("auth")`) and get the Connection as their first argument in place of
    a Flask request context: that would keep the whole handshake request alive for as long as the connection lives.
    """

    server: SocketServer

    def init_app(
        self, app: flask.Flask, direct: Mapping[tuple[str, str], Callable[..., Any]] | None = None, **kwargs: Any
    ) -> None:
        """Build the server (kwargs are SocketServer's) and put it in front of the app, the direct routes before it."""
        app.extensions["socketio"] = self
        self.server = SocketServer(**kwargs)
        self.async_mode = self.server.async_mode
        for name, handler, namespace in self.handlers:
            self.server.on(name, handler, namespace=namespace)
        self.sockio_mw = Middleware(self.server.eio, app.wsgi_app, direct or {})
        app.wsgi_app = self.sockio_mw  # type: ignore[method-assign]

    def _handle_event(
        self, handler: Callable[..., Any], message: str, namespace: str, connection: Connection, *args: Any
    ) -> Any:
        return handler(connection, *args)
