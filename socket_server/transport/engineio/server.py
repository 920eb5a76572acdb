"""The Engine.IO server (protocol 4) on gevent: sessions over parked WebSockets and over long-polling.

What the stock server does with a writer greenlet, a ping greenlet, a queue and a kept request for every client happens
here by watchers and one heartbeat. Source: github.com/socketio/engine.io-protocol; the error bodies are those of the
Node.js server, which clients know.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import engineio
import gevent
from engineio.packet import Packet as UpstreamPacket

from socket_server import log
from socket_server.runtime.greenlet_pool import GreenletPool
from socket_server.runtime.time_slice import TimeSlice
from socket_server.transport.engineio import frames
from socket_server.transport.engineio.eio_socket import EioSocket
from socket_server.transport.engineio.gate import BAD_REQUEST, PATH, TOO_LARGE, UNKNOWN_SID, Gate, Refusal, Request
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.heartbeat import Heartbeat
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.polling import Departure, PollingQueue
from socket_server.transport.engineio.websocket import WebSocket
from socket_server.transport.http.handover import worker_tag
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Socket.IO")

StartResponse = Callable[..., Any]
Response = tuple[str, list[tuple[str, str]], bytes]  # status, headers, body

# An upgrade that has sent its probe but not its "upgrade" packet by then is given up; polling goes on.
UPGRADE_TIMEOUT_S = 10.0


# A session that has ended while its client was between two polls: what it still has to hear is kept for so long.
LEAVE_S = 10.0

_PLAIN_TEXT = [("Content-Type", "text/plain; charset=UTF-8"), ("Cache-Control", "no-store")]


class EngineIOServer(engineio.Server):
    """The sessions of this process. WebSockets are handed over by the worker, polling comes as WSGI requests."""

    def __init__(self, gate: Gate, ping_interval_s: float, ping_timeout_s: float, limits: Limits) -> None:
        super().__init__(
            async_mode="gevent",
            logger=logging.getLogger("engineio.server"),
            monitor_clients=False,
            cors_allowed_origins=[],  # the gate's business
            ping_interval=ping_interval_s,
            ping_timeout=ping_timeout_s,
        )
        self.gate = gate
        self.limits = limits
        self.tag = worker_tag.new_tag()  # ends the ids of this worker's sessions
        self.heartbeat = Heartbeat(ping_interval_s, ping_timeout_s)
        self.greenlet_pool = GreenletPool()
        self.sockets: dict[str, EioSocket] = {}
        self._leaving: dict[str, PollingQueue] = {}
        self.on_upgraded: Callable[[Any], object] = lambda _: None  # told the session's connection
        self.sids_begin = ""  # so that a proxy in front of several nodes can tell whose session it is

    # Sessions

    def open(self, handshake: Handshake) -> EioSocket:
        """Begin a session, still without a transport."""
        sid = f"{self.sids_begin}{self.generate_id()}.{self.tag}"
        self.gate.addresses.opened(handshake.address)
        socket = self.sockets[sid] = EioSocket(self, sid, handshake)
        self.heartbeat.add(socket)
        return socket

    def _opening(self, socket: EioSocket, upgrades: Sequence[str]) -> Packet:
        """Return a session's OPEN packet."""
        return packets.encode_open(
            socket.sid, upgrades, self.ping_interval, self.ping_timeout, self.limits.max_message_bytes
        )

    def forget(self, socket: EioSocket) -> None:
        """Take a session that has ended out of the table."""
        self.sockets.pop(socket.sid, None)
        self.gate.addresses.closed(socket.address)
        self.heartbeat.discard(socket)
        if socket.polling is not None:
            self._leaving[socket.sid] = socket.polling
            gevent.spawn_later(LEAVE_S, self._leaving.pop, socket.sid, None)

    def upgraded(self, socket: EioSocket) -> None:
        """Tell the Socket.IO server that a session's transport is now a WebSocket."""
        if socket.connection is not None:
            self.on_upgraded(socket.connection)

    def deliver(self, socket: EioSocket, data: str | bytes) -> None:
        """Hand a MESSAGE to the Socket.IO server. An error ends this session, and no other."""
        try:
            self.handlers["message"](socket, data)
        except Exception:
            _log.exception("unexpected error in a message; closing its connection")
            socket.close(reason="server error")

    def ended(self, socket: EioSocket, reason: str) -> None:
        """Tell the Socket.IO server that a session has ended."""
        try:
            self.handlers["disconnect"](socket, reason)
        except Exception:
            _log.exception("unexpected error in a disconnect")

    def send_packet(self, sid: str, pkt: UpstreamPacket) -> None:
        """The upstream entry for sending; unlike upstream's it never waits."""
        socket = self.sockets.get(sid)
        if socket is not None:
            socket.send(pkt)

    def disconnect(self, sid: str | None = None) -> None:
        """Close one session, or all."""
        for socket in list(self.sockets.values()) if sid is None else filter(None, [self.sockets.get(sid)]):
            socket.close()

    def in_background(self, work: Callable[..., object], *args: Any) -> None:
        """Have something done that may wait, while the caller goes on."""
        self.greenlet_pool.start(work, *args)

    def drain(self, seconds: float) -> None:
        """Close every transport with 1012 (service restart), evenly over that time, so that clients do not come back
        elsewhere all at once. New sessions must already be refused (Gate.draining)."""
        sockets = list(self.sockets.values())
        started = time.monotonic()
        time_slice = TimeSlice()
        for index, socket in enumerate(sockets):
            time_slice.maybe_yield()
            wait_s = started + seconds * index / len(sockets) - time.monotonic()
            if wait_s >= 0.01:
                gevent.sleep(wait_s)
            socket.close(reason="server shutdown", code=frames.SERVICE_RESTART)

    def elsewhere(self, environ: Mapping[str, Any]) -> str | None:
        """Return the tag of the worker that has the session of this request; None where the answer is to be had here.

        A request that is not let in is none of that worker's business.
        """
        if "sid=" not in environ["QUERY_STRING"] or not environ["PATH_INFO"].startswith(PATH):
            return None
        request = Request.of(environ)
        tag = worker_tag.tag_of(request.sid or "")
        if tag is None or tag == self.tag or self.gate.judge(request, environ, len(self.sockets)) is not None:
            return None
        return tag

    # WebSockets, from the worker

    def judge_websocket(self, environ: Mapping[str, Any]) -> Refusal | None:
        """Say why a WebSocket request is refused, before its upgrade; None: accept it."""
        request = Request.of(environ)
        refusal = self.gate.judge(request, environ, len(self.sockets))
        if refusal is not None or request.sid is None:
            return refusal
        socket = self.sockets.get(request.sid)
        if socket is None:
            return UNKNOWN_SID
        return BAD_REQUEST if socket.upgraded or socket.probing else None

    def accept_websocket(self, environ: Mapping[str, Any], sock: Any, response: bytes, received: bytes) -> WebSocket:
        """Take over a socket that is to become a WebSocket. response: what ends the handshake, not yet sent; received:
        bytes that came behind the request.

        The caller must not have given up control between judge_websocket and this.
        """
        request = Request.of(environ)
        if request.sid is None:
            socket = self.open(self.gate.handshakes.read(environ))
            websocket = WebSocket(sock, socket, self.limits)
            socket.websocket = websocket
            # In this order: a client that is gone already ends in that send.
            self.handlers["connect"](socket, socket.handshake)
            websocket.send(response + self._opening(socket, ()).frame)
        else:
            socket = self.sockets[request.sid]
            websocket = WebSocket(sock, socket, self.limits)
            socket.probe(websocket)
            websocket.send(response)
            gevent.spawn_later(UPGRADE_TIMEOUT_S, socket.give_up_upgrade, websocket)
        websocket.start(received)
        return websocket

    def judge_body(self, environ: Mapping[str, Any]) -> tuple[int, Response | None]:
        """Judge a polling request before its body is read: how large it may be, or the response that refuses it.

        As on the Node.js server, a session that sends too much is closed.
        """
        limit = self.limits.max_message_bytes
        if int(environ.get("CONTENT_LENGTH", 0)) <= limit:
            return limit, None
        socket = self.sockets.get(Request.of(environ).sid or "")
        if socket is not None and socket.polling is not None:
            socket.close(reason="transport error")
        return 0, TOO_LARGE.response()

    # Polling, as WSGI

    def handle_request(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        """Serve one request of the polling transport."""
        if environ["REQUEST_METHOD"] == "OPTIONS" and self.gate.origins.allow(environ):
            return self._respond(environ, start_response, ("204 No Content", [], b""))
        request = Request.of(environ)
        refusal = self.gate.judge(request, environ, len(self.sockets))
        if refusal is None and request.transport != "polling":
            refusal = BAD_REQUEST  # a WebSocket request that asked for no upgrade
        if refusal is not None:
            return self._respond(environ, start_response, refusal.response())
        if request.sid is None:
            response = self._open_polling(environ)
        elif request.sid in self._leaving:
            response = self._part(request.sid) if request.method == "GET" else _OK
        else:
            socket = self.sockets.get(request.sid)
            if socket is None:
                response = UNKNOWN_SID.response()
            elif socket.polling is None:
                response = BAD_REQUEST.response()  # upgraded
            elif request.method == "GET":
                response = self._poll(socket, socket.polling, environ)
            else:
                response = self._post(socket, socket.polling, environ)
        return self._respond(environ, start_response, response)

    def _respond(self, environ: dict[str, Any], start_response: StartResponse, response: Response) -> list[bytes]:
        status, headers, body = response
        start_response(status, headers + self.gate.origins.headers(environ))
        return [body]

    def _open_polling(self, environ: dict[str, Any]) -> Response:
        socket = self.open(self.gate.handshakes.read(environ))
        polling = socket.polling = PollingQueue(self.limits.send_backlog_bytes)
        polling.put(self._opening(socket, self.gate.upgrades))
        self.handlers["connect"](socket, socket.handshake)
        return _payload(polling.take())

    def _poll(self, socket: EioSocket, polling: PollingQueue, environ: dict[str, Any]) -> Response:
        if socket.upgrading:
            return _payload([packets.NOOP_PACKET])
        if polling.polled:
            socket.close(reason="transport error")  # two polls at once: no client does that
            return BAD_REQUEST.response()
        with Departure(environ.get("socket_server.sock"), lambda: socket.close(reason="transport close")):
            polling.wait(self.ping_interval + self.ping_timeout)
        if socket.upgrading or socket.upgraded:
            return _payload([packets.NOOP_PACKET])  # the rest goes over the WebSocket
        return self._part(socket.sid) if socket.closed else _payload(socket.fetch(polling) or [packets.NOOP_PACKET])

    def _part(self, sid: str) -> Response:
        """Answer a poll of a session that has ended: what it still has to hear, and CLOSE in a response of its own, or
        the official client would act on the CLOSE before it has looked at the rest."""
        polling = self._leaving.get(sid)
        rest = [] if polling is None else polling.take()
        return _payload(rest or [packets.CLOSE_PACKET])

    def _post(self, socket: EioSocket, polling: PollingQueue, environ: dict[str, Any]) -> Response:
        if polling.taken:
            socket.close(reason="transport error")  # two posts at once: no client does that
            return BAD_REQUEST.response()
        polling.taken = True
        try:
            for packet in packets.decode_payload(environ["socket_server.body"]):
                socket.receive(packet)
            socket.settle()
        except ValueError:
            socket.close(reason="parse error")
            return BAD_REQUEST.response()
        finally:
            polling.taken = False
        return _OK


_OK: Response = ("200 OK", _PLAIN_TEXT, b"ok")


def _payload(contents: list[Packet]) -> Response:
    return "200 OK", _PLAIN_TEXT, packets.encode_payload(contents)
