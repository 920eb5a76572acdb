"""Recovery: what a user missed is read from the inbox and sent before anything live, in order, once (contract, section 6).

A page at a time, the next one only when the client has taken the last: a slow client costs a page of memory, not all that
it missed. Live notifications wait in line meanwhile (Connection.hold), as many as SEND_BACKLOG_BYTES allows.
"""

from typing import Protocol

from socket_server import log
from socket_server.inbox.inbox import Inbox, InboxUnavailable
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Socket.IO")

PAGE = 100
PAGE_BYTES = 65_536


class Greeting(Protocol):
    """Makes `auth_success`."""

    def __call__(self, *, recovered: bool, replayed: int) -> Packet: ...


class Recovery:
    """Brings connections up to date."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def run(self, connection: Connection, user_id: str, after: int, until: int, greet: Greeting) -> None:
        """Greet a connection that holds, send what its user has in after < offset <= until, and let it go live.

        Waits for the client. Where the inbox fails, or retention overtakes a client that is too slow, the transport is
        closed: the client comes back by itself and goes on from where it got to.
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
        """Return whether all of it has been sent: on a connection that ends before, nothing live may follow what was."""
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
