"""The life of a connection: connect, authenticate, expire, disconnect (contract, sections 3 and 4)."""

import time
from collections.abc import Callable
from typing import Any

from socket_server import log
from socket_server.auth import credentials
from socket_server.auth.credentials import Credentials
from socket_server.auth.tokens import Identity, TokenVerifier, expired_token
from socket_server.cluster.registry import CROWDED_OUT, REPLACED, Registry
from socket_server.config import Settings
from socket_server.errors import AuthenticationError, InboxUnavailable
from socket_server.notifications import positions
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.positions import Position
from socket_server.notifications.recovery import Recovery
from socket_server.runtime.deadlines import Deadlines
from socket_server.sessions import SessionManager
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet
from socket_server.transport.socketio.server import SocketIO

_log = log.logger("Socket.IO")

# A token may say that it expires in a thousand years; a deadline that far away is as good as none, and within what every
# clock of the system can hold.
_MAX_DEADLINE_S = 10 * 365 * 86_400


class ConnectionEvents:
    """The handlers of the default namespace."""

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
    ) -> None:
        """failed: told the address of every failed authentication."""
        self._settings = settings
        self._verifier = verifier
        self._sessions = sessions
        self._registry = registry
        self._broadcaster = broadcaster
        self._recovery = recovery
        self._deadlines = deadlines
        self._failed = failed
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
        """Authenticate by what the handshake carried, or give the client AUTH_TIMEOUT to send `auth`."""
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
        # Before the credentials are looked at: verifying them may wait for an identity provider.
        self._end_after(connection, self._settings.auth_timeout_s, auth_timeout())
        self._authenticate(connection, find)

    def auth(self, connection: Connection, data: Any = None, *_: Any) -> None:
        """The event `auth`: authenticate, or refresh the token of an authenticated connection."""
        connection.position = positions.with_event(connection.position, data)
        self._authenticate(connection, lambda: credentials.from_event(data))

    def ping(self, connection: Connection, *_: Any) -> None:
        """The event `ping`: answered by `pong`, and by an acknowledgement where one is asked for."""
        # Clients take an event's last string for a recovery offset; null keeps its name from being one.
        connection.emit("pong", None)

    def disconnected(self, connection: Connection, reason: str) -> None:
        """Whatever ended it: forget the connection."""
        if connection.deadline is not None:
            connection.deadline.cancel()
        user_id = self._sessions.remove(connection)
        _log.info("disconnected sid=%s user=%s reason=%s", connection.sid, user_id, reason)

    def _authenticate(self, connection: Connection, find: Callable[[], Credentials | None]) -> None:
        """Register the connection, or refuse and disconnect it, or leave it as it is where it brought no credentials."""
        try:
            found = find()
            if found is not None:
                self._admit(connection, self._identify(connection, found))
        except AuthenticationError as error:
            if connection.attributable:
                self._failed(connection.address)
            self._refuse(connection, error)
        except InboxUnavailable as error:
            _log.error("closed: cannot recover sid=%s: %s", connection.sid, error)
            connection.eio_socket.close(reason="inbox unavailable")  # it comes back and tries again
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
            return  # it left while its token was being verified
        # Before the rest, which may wait for Redis: AUTH_TIMEOUT has been met.
        if identity.expires_at is None:
            self._end_after(connection, None, expired_token())
        else:
            left_s = identity.expires_at + self._settings.jwt_leeway_s - time.time()
            self._end_after(connection, max(0.0, left_s) if left_s < _MAX_DEADLINE_S else None, expired_token())
        position, connection.position = connection.position, None
        if connection.user_id is None:
            self._begin(connection, identity, position)
        else:
            # A refresh: it is live, or is being brought up to date, and misses nothing.
            self._broadcaster.in_turn(lambda head: connection.deliver([_success(identity, head, recovered=True)]))

    def _begin(self, connection: Connection, identity: Identity, position: Position | None) -> None:
        """Register a connection, and send it what it has missed, before anything new."""
        self._end_half_open(connection, identity.user_id)
        if position is not None and position.after is not None and position.after > self._broadcaster.head:
            self._broadcaster.catch_up()  # it comes from a process that is a little ahead of this one
            if connection.gone:
                return
        connection.hold()
        head, evicted = self._broadcaster.admit(identity.user_id, connection)
        if evicted is not None:
            self._refuse(evicted, too_many_connections())
        # Meanwhile what is broadcast to it waits in line.
        self._registry.settle(connection)
        after = None if position is None else position.within(head)
        if after is None or after == head:
            connection.send(_success(identity, head, recovered=after == head))
            connection.release()
            return

        def greet(*, recovered: bool, replayed: int) -> Packet:
            return _success(identity, head, recovered, replayed)

        # In the background: meanwhile the client's packets are read, its heartbeats among them.
        self._in_background(self._recovery.run, connection, identity.user_id, after, head, greet)

    def _end_half_open(self, connection: Connection, user_id: str) -> None:
        """End the connections that this client has left: it came back before anybody noticed their death."""
        for other in self._sessions.connections_of([user_id]).connections:
            if other.pid == connection.pid and other is not connection:
                self.end(other, REPLACED)

    def end(self, connection: Connection, why: str) -> None:
        """End a connection for one of the registry's reasons."""
        if why == REPLACED:
            _log.info("half-open sid=%s gives way to its client's new connection", connection.sid)
            self._sessions.remove(connection)
            connection.eio_socket.close(reason="replaced by its own reconnection")
        else:
            self._refuse(connection, too_many_connections() if why == CROWDED_OUT else signed_out())

    def _refuse(self, connection: Connection, error: AuthenticationError) -> None:
        if connection.ended:
            return
        _log.info("refused sid=%s address=%s code=%s", connection.sid, connection.address, error.code)
        connection.emit("auth_error", {"message": error.message, "code": error.code})
        self._disconnect(connection)

    def _end_after(self, connection: Connection, delay_s: float | None, error: AuthenticationError) -> None:
        """Set what ends this connection if nothing else does, in place of what was set before."""
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
