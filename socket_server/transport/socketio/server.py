"""The Socket.IO server (protocol 5): the default namespace over either Engine.IO server.

Source: github.com/socketio/socket.io-protocol. A malformed packet closes the connection, as on the Node.js server.
"""

import logging
from collections.abc import Callable
from typing import Any

import gevent.monkey
import socketio
from engineio.packet import Packet as UpstreamPacket

from socket_server import log
from socket_server.runtime.deadlines import Deadlines
from socket_server.transport.engineio import frames
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.packets import MESSAGE, wrap
from socket_server.transport.socketio import decoder, packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.decoder import Head
from socket_server.transport.socketio.packets import Packet
from socket_server.transport.socketio.partial_packet import COMPLETE_WITHIN_S, PartialPacket
from socket_server.transport.socketio.rooms import Rooms

_log = log.logger("Socket.IO")

# Under `flask run`, python-engineio drops what is unsent when a socket closes. The close is delayed by this time.
_THREADED_CLOSE_DELAY_S = 2.0

# Between a node's name and the rest of a session id. Neither contains it, and it needs no escape in a URL.
NODE_SEPARATOR = "~"


class UnsupportedDataError(ValueError):
    """The client sends packets in a format that this server does not read."""


def on_gevent() -> bool:
    """Return whether this process runs on gevent (the gunicorn worker) and not on threads (`flask run`)."""
    return bool(gevent.monkey.is_module_patched("socket"))


class SocketServer(socketio.Server):
    """Connections, their events and acknowledgements."""

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
        """pid_for: returns the `pid` of the CONNECT reply for the `auth` of the handshake. upgraded: called with a
        connection whose transport has become a WebSocket. node: the name of this node, "" if there is only one."""
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
            self.eio.sid_prefix = f"{node}{NODE_SEPARATOR}"

    def _engineio_server_class(self) -> Callable[..., Any]:
        if not on_gevent():
            from socket_server.transport.engineio.threaded import ThreadedEngineIOServer

            return lambda async_handlers, **options: ThreadedEngineIOServer(**options)
        from socket_server.transport.engineio.server import EngineIOServer

        return lambda async_handlers, **options: EngineIOServer(**options)

    # From the Engine.IO socket

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
        except UnsupportedDataError as error:
            _log.warning("closed: %s, address=%s", error, eio_socket.address)
            eio_socket.close(reason="parse error", code=frames.UNSUPPORTED_DATA)
        except ValueError as error:
            _log.info("closed: bad packet (%s)", error)
            eio_socket.close(reason="parse error")

    def _dispatch(self, eio_socket: Any, data: str | bytes) -> None:
        connection: Connection | None = eio_socket.connection
        if connection is not None and connection.partial is not None:
            self._add_attachment(connection, connection.partial, data)
            return
        if not isinstance(data, str):
            if connection is None:
                raise UnsupportedDataError(
                    "binary packet before CONNECT: the client uses a binary parser (such as socket.io-msgpack-parser), "
                    "this server reads the default one only"
                )
            raise ValueError("attachment without a binary packet")
        head = decoder.decode_head(data)
        if head.namespace != "/":
            self._refuse_namespace(eio_socket, head)
        elif head.kind == decoder.CONNECT:
            if connection is not None:
                raise ValueError("second CONNECT")
            self._connect(eio_socket, decoder.decode_data(head))
        elif connection is None:
            raise ValueError("packet before CONNECT")
        elif head.attachments:
            self._begin_binary(connection, head, data)
        else:
            self._handle(connection, head, decoder.decode_data(head))

    def _refuse_namespace(self, eio_socket: Any, head: Head) -> None:
        if head.kind == decoder.CONNECT:
            refusal = '{"message":"Invalid namespace"}'
            eio_socket.send(Packet(f"44{head.namespace},{refusal}".encode()))

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
            self._tell_if_authenticated(connection)

    def _tell_if_authenticated(self, connection: Connection) -> None:
        if connection.user_id is not None:
            self.eio.authenticated(connection.eio_socket)

    # Binary packets

    def _begin_binary(self, connection: Connection, head: Head, text: str) -> None:
        """Keep a binary packet until its attachments have arrived. An unauthenticated client is refused instead."""
        if connection.user_id is None:
            _log.info("closed: binary event before authentication, sid=%s", connection.sid)
            connection.ack_id = head.id
            self.disconnect_connection(connection, "binary event before authentication")
            return
        partial = connection.partial = PartialPacket(text, head.attachments, self._limits.max_message_bytes)
        partial.deadline = self._deadlines.after(COMPLETE_WITHIN_S, lambda: self._attachments_overdue(connection))

    def _attachments_overdue(self, connection: Connection) -> None:
        if connection.partial is not None and not connection.gone:
            _log.info("closed: attachments missing after %g s, sid=%s", COMPLETE_WITHIN_S, connection.sid)
            connection.partial = None
            connection.eio_socket.close(reason="parse error")

    def _add_attachment(self, connection: Connection, partial: PartialPacket, data: str | bytes) -> None:
        if not isinstance(data, bytes):
            raise ValueError("text instead of a binary attachment")
        if partial.add(data):
            self._end_binary(connection)
            self._handle(connection, *partial.decode())

    def _end_binary(self, connection: Connection) -> None:
        partial, connection.partial = connection.partial, None
        if partial is not None and partial.deadline is not None:
            partial.deadline.cancel()

    # Events

    def _handle(self, connection: Connection, head: Head, data: Any) -> None:
        if head.kind == decoder.DISCONNECT:
            self.ended(connection, "client namespace disconnect")
            # There is no other namespace, so without this one the client needs no transport.
            self._close(connection, "client namespace disconnect")
        elif head.kind in (decoder.ACK, decoder.BINARY_ACK):
            if head.id is not None and data is not None:
                self.manager.trigger_callback(connection.sid, head.id, data)
        elif data is not None:
            self._run_event(connection, head.id, *data)

    def _run_event(self, connection: Connection, ack_id: int | None, name: Any, *arguments: Any) -> None:
        """Call the handler of an event, and acknowledge it. An event without a handler is ignored, as on Node.js."""
        connection.ack_id = ack_id
        answer = self._trigger_event(name, "/", connection, *arguments)
        if answer is self.not_handled:
            connection.ack_id = None
        else:
            self._acknowledge(connection, answer)
        self._tell_if_authenticated(connection)

    def _acknowledge(self, connection: Connection, answer: Any = None) -> None:
        """Send the acknowledgement of the event being handled, if its client waits for one and has not got it."""
        ack_id, connection.ack_id = connection.ack_id, None
        if ack_id is None:
            return
        arguments = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
        encoded = socketio.packet.Packet(socketio.packet.ACK, data=arguments, id=ack_id).encode()
        for part in encoded if isinstance(encoded, list) else [encoded]:
            connection.eio_socket.send(wrap(UpstreamPacket(int(MESSAGE), part)))

    def _trigger_event(self, event: Any, namespace: str, *args: Any) -> Any:
        handler = self.handlers["/"].get(event)
        return self.not_handled if handler is None else handler(*args)

    # The end of a connection

    def _handle_eio_disconnect(self, eio_socket: Any, reason: str) -> None:
        eio_socket.deadline.cancel()
        connection, eio_socket.connection = eio_socket.connection, None  # so that no reference cycle is left
        if connection is not None:
            self.ended(connection, reason)

    def ended(self, connection: Connection, reason: str) -> None:
        """Remove a connection and call its `disconnect` handler, once."""
        if self.rooms_of.remove(connection):
            self._end_binary(connection)
            self._trigger_event("disconnect", "/", connection, reason)

    def disconnect_connection(self, connection: Connection, reason: str = "server namespace disconnect") -> None:
        """Send DISCONNECT and close the transport. The official client does not reconnect by itself after that.

        The event being handled is acknowledged first: the official client (`retries`) sends an event that was not
        acknowledged again on its next connection, before anything else, and would be refused again.
        """
        if connection.sid not in self.rooms_of.connections:
            return
        self._acknowledge(connection)
        connection.send(packets.DISCONNECT)
        self.ended(connection, reason)
        self._close(connection, reason)

    def _close(self, connection: Connection, reason: str) -> None:
        eio_socket: Any = connection.eio_socket
        if on_gevent():
            eio_socket.close(reason=reason)
        else:
            self._deadlines.after(_THREADED_CLOSE_DELAY_S, lambda: eio_socket.close(reason=reason))

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Disconnect a connection by its sid; Flask-SocketIO's `disconnect` calls it."""
        connection = self.rooms_of.connections.get(sid)
        if connection is not None:
            self.disconnect_connection(connection)
