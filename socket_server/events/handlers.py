"""The life of a connection: connect, authenticate, expire, disconnect (docs/protocol.md, "Authentication", "Events")."""

import time
from collections.abc import Callable
from typing import Any

from socket_server import log
from socket_server.auth import credentials
from socket_server.auth.credentials import Credentials
from socket_server.auth.tokens import Identity, TokenVerifier, expired_token
from socket_server.cluster.registry import CROWDED_OUT, REPLACED, Registry
from socket_server.config import Settings
from socket_server.errors import AuthenticationError, Unavailable
from socket_server.metrics.worker import Metrics
from socket_server.notifications import positions
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.positions import Position
from socket_server.notifications.recovery import Recovery
from socket_server.runtime.deadlines import Deadlines
from socket_server.sessions import SessionManager
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.flask_extension import SocketIO
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Socket.IO")

# The label `reason` of the metric of disconnects, by the reason in the log. Every other reason is its own label or `other`.
_REASONS = {
    "client namespace disconnect": "client_disconnect",
    "client disconnect": "client_disconnect",
    "transport close": "transport_close",
    "transport error": "transport_close",
    "ping timeout": "ping_timeout",
    "slow consumer": "slow_consumer",
    "too slow for its replay": "slow_consumer",
    "server shutdown": "server_shutdown",
    "replaced by its own reconnection": "replaced",
    "parse error": "protocol_error",
    "server error": "server_error",
}

# A token that expires later than this gets no deadline: the system's clocks cannot hold every date that a token can name.
_MAX_DEADLINE_S = 10 * 365 * 86_400


class ConnectionEvents:
    """The event handlers of the default namespace."""

    def __init__(
        self,
        settings: Settings,
        verifier: TokenVerifier,
        sessions: SessionManager,
        registry: Registry,
        broadcaster: Broadcaster,
        recovery: Recovery,
        deadlines: Deadlines,
        failed: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        """failed: called with the client's address, "" if it is unknown, at every failed authentication."""
        self._settings = settings
        self._verifier = verifier
        self._sessions = sessions
        self._registry = registry
        self._broadcaster = broadcaster
        self._recovery = recovery
        self._deadlines = deadlines
        self._failed = failed
        self._metrics = metrics
        self._disconnect: Callable[..., None] = lambda *_: None
        self._in_background: Callable[..., object] = lambda *_: None

    def register(self, socketio: SocketIO) -> None:
        """Register the handlers with Flask-SocketIO."""
        socketio.on("connect")(self.connect)
        socketio.on("disconnect")(self.disconnected)
        socketio.on("auth")(self.auth)
        socketio.on("ping")(self.ping)
        self._disconnect = socketio.server.disconnect_connection
        self._in_background = socketio.server.eio.in_background

    def connect(self, connection: Connection, auth: Any = None) -> None:
        """Authenticate by the credentials of the handshake; without any, wait AUTH_TIMEOUT for the event `auth`."""
        handshake = connection.handshake
        assert handshake is not None
        _log.info("connected sid=%s transport=%s address=%s", connection.sid, connection.transport, connection.address)

        def find() -> Credentials | None:
            return credentials.from_handshake(
                auth,
                handshake.cookie,
                handshake.authorization,
                self._settings.jwt_cookie,
                self._settings.user_cookie,
            )

        connection.position = positions.of_handshake(auth)
        # Before the verification, which may wait for an identity provider.
        self._end_after(connection, self._settings.auth_timeout_s, auth_timeout())
        self._authenticate(connection, find)

    def auth(self, connection: Connection, data: Any = None, *_: Any) -> None:
        """The event `auth`: authenticate, or refresh the token of an authenticated connection."""
        connection.position = positions.with_event(connection.position, data)
        self._authenticate(connection, lambda: credentials.from_event(data))

    def ping(self, connection: Connection, *_: Any) -> None:
        """The event `ping`: answered by the event `pong`, and by an acknowledgement if the client asks for one."""
        # The client stores the last element of an event as its recovery offset if that is a string, so it must not be one.
        connection.emit("pong", None)

    def disconnected(self, connection: Connection, reason: str) -> None:
        """Forget a connection that has ended, for any reason."""
        if connection.deadline is not None:
            connection.deadline.cancel()
        user_id = self._sessions.remove(connection)
        if connection.user_id is not None:
            self._metrics.disconnects.add(_REASONS.get(reason, reason))
        _log.info("disconnected sid=%s user=%s reason=%s", connection.sid, user_id, reason)

    def _authenticate(self, connection: Connection, find: Callable[[], Credentials | None]) -> None:
        """Register the connection, or refuse it; without credentials leave it as it is."""
        try:
            found = find()
            if found is not None:
                identity = self._identify(connection, found)
                self._metrics.authentications.add("success")
                self._admit(connection, identity)
        except AuthenticationError as error:
            self._failed(connection.address)
            self._refuse(connection, error)
        except Unavailable as error:
            self._metrics.authentications.add("unavailable")
            # Neither the token nor the client is at fault. Closing the transport makes the client reconnect and try again.
            _log.error("closed: cannot authenticate sid=%s: %s", connection.sid, error)
            connection.eio_socket.close(reason="temporarily unavailable")
        except Exception:
            _log.exception("unexpected error while authenticating sid=%s", connection.sid)
            self._refuse(connection, AuthenticationError("Authentication failed", "internal"))

    def _identify(self, connection: Connection, found: Credentials) -> Identity:
        identity = self._verifier.verify(found.token)
        known = self._sessions.user_of(connection)
        if found.user_id not in (None, identity.user_id) or known not in (None, identity.user_id):
            raise credentials.user_mismatch()
        return identity

    def _admit(self, connection: Connection, identity: Identity) -> None:
        if connection.gone:
            return  # it ended while its token was being verified
        # Replace AUTH_TIMEOUT first: the rest may wait for Redis.
        if identity.expires_at is None:
            self._end_after(connection, None, expired_token())
        else:
            left_s = identity.expires_at + self._settings.jwt_leeway_s - time.time()
            self._end_after(connection, max(0.0, left_s) if left_s < _MAX_DEADLINE_S else None, expired_token())
        position, connection.position = connection.position, None
        if connection.user_id is None:
            self._begin(connection, identity, position)
        else:
            # A token refresh: the connection is live or recovering, so nothing needs to be replayed.
            self._broadcaster.send_at_head(connection, lambda head: _success(identity, head, recovered=True))

    def _begin(self, connection: Connection, identity: Identity, position: Position | None) -> None:
        """Register a connection, and replay what it missed before any live notification."""
        self._end_half_open(connection, identity.user_id)
        if position is not None and position.after is not None and position.after > self._broadcaster.head:
            self._broadcaster.catch_up()  # the offset comes from another process that has delivered more than this one
            if connection.gone:
                return
        connection.hold()
        head, evicted = self._broadcaster.admit(identity.user_id, connection)
        self._metrics.connects.value += 1
        if evicted is not None:
            self._refuse(evicted, too_many_connections())
        # Live notifications are held until the replay is complete.
        self._registry.wait_until_visible(connection)
        after = None if position is None else position.within(head)
        if after is None or after == head:
            connection.send(_success(identity, head, recovered=after == head))
            connection.release()
            return

        def greet(*, recovered: bool, replayed: int) -> Packet:
            return _success(identity, head, recovered, replayed)

        # In another greenlet, so that the client's packets, heartbeats included, are read during the replay.
        self._in_background(self._recovery.run, connection, identity.user_id, after, head, greet)

    def _end_half_open(self, connection: Connection, user_id: str) -> None:
        """Close half-open connections of this client: it reconnected before the server noticed that they are dead."""
        for other in self._sessions.connections_of([user_id]).connections:
            if other.pid == connection.pid and other is not connection:
                self.end(other, REPLACED)

    def end(self, connection: Connection, why: str) -> None:
        """End a connection. why: one of the reasons in cluster/registry.py."""
        if why == REPLACED:
            _log.info("closed: half-open, replaced by a new connection of its client, sid=%s", connection.sid)
            self._sessions.remove(connection)
            connection.eio_socket.close(reason="replaced by its own reconnection")
        else:
            self._refuse(connection, too_many_connections() if why == CROWDED_OUT else signed_out())

    def _refuse(self, connection: Connection, error: AuthenticationError) -> None:
        if connection.ended:
            return
        _log.info("refused sid=%s address=%s code=%s", connection.sid, connection.address, error.code)
        self._metrics.authentications.add(error.code)
        connection.emit("auth_error", {"message": error.message, "code": error.code})
        self._disconnect(connection, error.code)

    def _end_after(self, connection: Connection, delay_s: float | None, error: AuthenticationError) -> None:
        """Replace the deadline at which this connection is refused with `error`. delay_s None: no deadline."""
        if connection.deadline is not None:
            connection.deadline.cancel()
            connection.deadline = None
        if delay_s is not None and not connection.ended:
            connection.deadline = self._deadlines.after(delay_s, lambda: self._refuse(connection, error))


def _success(identity: Identity, last_id: int, recovered: bool, replayed: int = 0) -> Packet:
    return packets.encode_event(
        "auth_success",
        {
            "userId": identity.user_id,
            "expiresAt": identity.expires_at,
            "recovered": recovered,
            "replayed": replayed,
            "lastId": str(last_id),
        },
    )


def too_many_connections() -> AuthenticationError:
    return AuthenticationError("Too many connections", "too_many_connections")


def signed_out() -> AuthenticationError:
    return AuthenticationError("Signed out", "signed_out")


def auth_timeout() -> AuthenticationError:
    return AuthenticationError("Authentication timeout", "auth_timeout")
