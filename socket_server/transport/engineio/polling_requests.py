"""The polling transport as a WSGI application: handshakes, GET requests that wait, and POST requests.

What errors answer follows the official client (engine.io-client 6), which treats every status but 200 as a lost connection
(`transport error`), reconnects, and drops what it has not fetched:

- A packet that is not of Engine.IO protocol 4, or a malformed payload: 400 and the end of the session, as the test suite of
  the protocol expects. Nothing is kept of the session: its next poll is a 400 too.
- A session that has ended in any other way: its polls get what it has not fetched, and then CLOSE, each with 200, for
  KEEP_S seconds. After that, 400 ("Session ID unknown"). With 400 at once, a refused client would not get its `auth_error`
  and DISCONNECT, and would reconnect with the same token.
- A packet that is malformed only as a Socket.IO packet: 200 and the end of the session, as on the Node.js server.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from socket_server.transport.engineio import packets
from socket_server.transport.engineio.eio_socket import EioSocket
from socket_server.transport.engineio.gate import BAD_REQUEST, TOO_LARGE, UNKNOWN_SID, Request
from socket_server.transport.engineio.hang_up import HangUpWatcher
from socket_server.transport.engineio.packets import Packet
from socket_server.transport.engineio.polling_queue import PollingQueue

if TYPE_CHECKING:
    from socket_server.transport.engineio.server import EngineIOServer

StartResponse = Callable[..., Any]
Response = tuple[str, list[tuple[str, str]], bytes]  # status line, headers, body

_PLAIN_TEXT = [("Content-Type", "text/plain; charset=UTF-8"), ("Cache-Control", "no-store")]
_OK: Response = ("200 OK", _PLAIN_TEXT, b"ok")


class PollingRequests:
    """Serves the polling requests of one Engine.IO server."""

    def __init__(self, server: "EngineIOServer") -> None:
        self._server = server

    def handle(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        """Serve one request; blocks while a GET waits for packets."""
        status, headers, body = self._response(environ)
        start_response(status, headers + self._server.gate.origins.headers(environ))
        return [body]

    def judge_body(self, environ: dict[str, Any]) -> tuple[int, Response | None]:
        """Return the largest body that a request may have, in bytes, and the response that refuses a larger one.

        As on the Node.js server, a session that sends a larger one is closed.
        """
        limit = self._server.limits.max_message_bytes
        if int(environ.get("CONTENT_LENGTH", 0)) <= limit:
            return limit, None
        socket = self._server.sockets.get(Request.of(environ).sid or "")
        if socket is not None and socket.polling is not None:
            socket.close(reason="transport error")
        return 0, TOO_LARGE.response()

    def _response(self, environ: dict[str, Any]) -> Response:
        server = self._server
        if environ["REQUEST_METHOD"] == "OPTIONS" and server.gate.origins.allow(environ):
            return "204 No Content", [], b""
        request = Request.of(environ)
        refusal = server.judge(request, environ)
        if refusal is not None:
            return refusal.response()
        if request.transport != "polling":
            return BAD_REQUEST.response()  # a WebSocket request without an Upgrade header
        if request.sid is None:
            return self._open(environ)
        socket = server.sockets.get(request.sid)
        if socket is None:
            if request.sid not in server.departed:
                return UNKNOWN_SID.response()
            return self._farewell(request.sid) if request.method == "GET" else _OK
        if socket.polling is None:
            return BAD_REQUEST.response()  # its transport is a WebSocket
        if request.method == "GET":
            return self._poll(socket, socket.polling, environ)
        return self._post(socket, socket.polling, environ)

    def _open(self, environ: dict[str, Any]) -> Response:
        server = self._server
        socket = server.open(server.gate.handshakes.read(environ))
        polling = PollingQueue(server.limits.send_backlog_bytes)
        socket.open_polling(polling)
        polling.put(server.encode_open(socket, server.gate.upgrades))
        server.connected(socket)
        return _payload(polling.take())

    def _poll(self, socket: EioSocket, polling: PollingQueue, environ: dict[str, Any]) -> Response:
        if socket.upgrading:
            return _payload([packets.NOOP_PACKET])
        if polling.polled:
            socket.close(reason="transport error")  # no client polls twice at once
            return BAD_REQUEST.response()
        with HangUpWatcher(environ.get("socket_server.sock"), lambda: socket.close(reason="transport close")):
            polling.wait(self._server.ping_interval + self._server.ping_timeout)
        if socket.upgrading or socket.upgraded:
            return _payload([packets.NOOP_PACKET])  # what is queued goes over the WebSocket
        if socket.closed:
            return self._farewell(socket.sid)
        return _payload(socket.take_unsent(polling) or [packets.NOOP_PACKET])

    def _farewell(self, sid: str) -> Response:
        """Answer a poll of a session that has ended: with what its client has not fetched, else with CLOSE.

        CLOSE has a response of its own: the official client acts on it before it handles the packets around it.
        """
        return _payload(self._server.departed.take(sid) or [packets.CLOSE_PACKET])

    def _post(self, socket: EioSocket, polling: PollingQueue, environ: dict[str, Any]) -> Response:
        if polling.posting:
            socket.close(reason="transport error")  # no client posts twice at once
            return BAD_REQUEST.response()
        polling.posting = True
        try:
            for packet in packets.decode_payload(environ["socket_server.body"]):
                socket.receive(packet)
        except ValueError:
            socket.close(abort=True, reason="parse error")
            return BAD_REQUEST.response()
        else:
            socket.wait_until_handled()
        finally:
            polling.posting = False
        return _OK


def _payload(contents: list[Packet]) -> Response:
    return "200 OK", _PLAIN_TEXT, packets.encode_payload(contents)
