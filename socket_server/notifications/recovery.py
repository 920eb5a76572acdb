"""Recovery: replay what a user missed, from the inbox, before anything live (docs/protocol.md, section 6).

The replay is read and sent in pages, each when the client has taken the one before: a slow client costs one page of memory.
Live notifications are held by the connection until then, up to SEND_BACKLOG_BYTES (Connection.hold).
"""

from typing import Protocol

from socket_server import log
from socket_server.inbox.inbox import Inbox, InboxUnavailable
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Socket.IO")

PAGE = 100  # notifications of one page, at most
PAGE_BYTES = 65_536  # bytes of their JSON, unless the first alone has more


class Greeting(Protocol):
    """Encodes `auth_success`."""

    def __call__(self, *, recovered: bool, replayed: int) -> Packet: ...


class Recovery:
    """Replays what connections missed."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def run(self, connection: Connection, user_id: str, after: int, until: int, greet: Greeting) -> None:
        """Send `auth_success` and the notifications in after < offset <= until, then release the connection, which holds.

        Blocks while the client reads. Closes the transport if the inbox fails, or if retention drops what is still to be
        sent to a slow client: the client reconnects and recovers the rest.
        """
        try:
            if self._replay(connection, user_id, after, until, greet):
                connection.release()
        except InboxUnavailable as error:
            _log.error("closed: cannot recover sid=%s: %s", connection.sid, error)
            connection.eio_socket.close(reason="inbox unavailable")
        except Exception:
            _log.exception("unexpected error while recovering sid=%s", connection.sid)
            connection.eio_socket.close(reason="server error")

    def _replay(self, connection: Connection, user_id: str, after: int, until: int, greet: Greeting) -> bool:
        """Return whether everything was sent. If not, nothing live may follow: the client would recover from after it."""
        page = self._inbox.since(user_id, after, until, PAGE, PAGE_BYTES)
        prepared = [greet(recovered=page.complete, replayed=page.total)]
        left = page.total
        while True:
            prepared += [packets.encode_notification(each.notification, each.offset) for each in page.notifications]
            if not connection.send_all(prepared):
                return False
            left -= len(page.notifications)
            if left <= 0 or not page.notifications:
                break
            if not connection.eio_socket.wait_until_sent():
                return False
            page = self._inbox.since(user_id, page.notifications[-1].offset, until, PAGE, PAGE_BYTES)
            if not page.complete:
                _log.info("closed: too slow for its replay, sid=%s", connection.sid)
                connection.eio_socket.close(reason="too slow for its replay")
                return False
            prepared = []
        return not connection.gone
