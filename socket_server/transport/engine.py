"""The Engine.IO server (protocol 4) on gevent: sessions over parked WebSockets and over long-polling.

What the stock server does with a writer greenlet, a ping greenlet, a queue and a kept request for every client happens
here by watchers and one heartbeat. Source: github.com/socketio/engine.io-protocol; the error bodies are those of the
Node.js server, which clients know.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import engineio
import gevent
from engineio.packet import Packet as UpstreamPacket
from gevent.event import Event

from socket_server import log
from socket_server.transport import frames, handover, packets
from socket_server.transport.crew import Crew
from socket_server.transport.gate import BAD_REQUEST, PATH, TOO_LARGE, UNKNOWN_SID, Gate, Refusal, Request
from socket_server.transport.handshake import Handshake
from socket_server.transport.heartbeat import Heartbeat
from socket_server.transport.limits import Limits
from socket_server.transport.packets import Packet
from socket_server.transport.polling import Departure, PollingQueue
from socket_server.transport.rate import TokenBucket
from socket_server.transport.turns import Turn
from socket_server.transport.websocket import WebSocket

_log = log.logger("Socket.IO")

StartResponse = Callable[..., Any]
Response = tuple[str, list[tuple[str, str]], bytes]  # status, headers, body

# An upgrade that has sent its probe but not its "upgrade" packet by then is given up; polling goes on.
UPGRADE_TIMEOUT_S = 10.0


class EngineSocket:
    """One Engine.IO session: its transport now, its upgrade under way, and its packets in order.

    Packets that mean work are handled by one of the crew, one after the other; until it is done nothing more is read from
    the client.
    """

    __slots__ = (
        "_bucket",
        "_closing",
        "_ended_already",
        "_inbound",
        "_probe",
        "_reason",
        "_sent",
        "_server",
        "_settled",
        "_upgrading",
        "address",
        "deadline",
        "handshake",
        "polling",
        "session",
        "sid",
        "websocket",
    )

    def __init__(self, server: "EngineServer", sid: str, handshake: Handshake) -> None:
        self._server = server
        self.sid = sid
        self.address = handshake.address
        self.handshake: Handshake | None = handshake  # until the Socket.IO CONNECT has been answered
        self.websocket: WebSocket | None = None
        self.polling: PollingQueue | None = None
        self._probe: WebSocket | None = None  # a WebSocket that asks to take over from polling
        self._upgrading = False  # it has probed: polling requests are answered with NOOP
        # What has been received and is being handled (None: the session has ended); there only meanwhile.
        self._inbound: deque[str | bytes | None] | None = None
        self._settled: Event | None = None  # set when that has been handled, where somebody waits for it
        self._reason = ""
        self._closing: tuple[str, int] | None = None  # to be closed when the upgrade has come to its end: reason, code
        self._bucket: TokenBucket | None = None  # of its messages, from the first on
        self._ended_already = False
        self._sent: Event | None = None  # set when the client has taken everything, where somebody waits for that
        self.deadline: Any = None  # of the Socket.IO CONNECT
        self.session: Any = None  # the Socket.IO server's Connection

    @property
    def closed(self) -> bool:
        """Whether the session has ended, or will as soon as its upgrade has come to its end."""
        return self._ended_already or self._closing is not None

    @property
    def upgraded(self) -> bool:
        """Whether the transport is a WebSocket; the upstream server asks."""
        return self.websocket is not None

    # Outwards

    def send(self, packet: UpstreamPacket) -> bool:
        """Write a packet to the client, or line it up. Never blocks. Return False where the session has ended."""
        ours = packets.wrap(packet)
        if self.websocket is not None:
            return self.websocket.send(ours.frame)
        if self.polling is None or self._ended_already:
            return False
        if not self.polling.put(ours):
            self._ended("slow consumer")
            return False
        return True

    @property
    def max_backlog(self) -> int:
        return self._server.limits.send_backlog_bytes

    @property
    def _unsent(self) -> bool:
        if self.websocket is not None:
            return self.websocket.unsent
        return self.polling is not None and not self.polling.empty

    def wait_until_sent(self) -> bool:
        """Wait until the client has taken all that was sent to it; return False where it has ended."""
        while self._unsent and not self.closed:
            self._sent = self._sent or Event()
            self._sent.wait()
        return not self.closed

    def _look_whether_sent(self) -> None:
        if self._sent is not None and (self.closed or not self._unsent):
            self._sent.set()
            self._sent = None

    def ping(self) -> None:
        self.send(packets.PING_PACKET)

    def overdue(self) -> None:
        self.close(reason="ping timeout", code=frames.NORMAL)

    def close(self, wait: bool = False, abort: bool = False, reason: str | None = None, code: int = frames.NORMAL) -> None:
        """Close the session's transport; the official client takes that for a lost connection and comes back.

        code: the WebSocket close code. wait, abort: the stock server's parameters, without meaning here.
        """
        if self.closed:
            return
        if self._upgrading:
            # The client has stopped to poll and does not read the WebSocket yet: what it still has to hear would be lost.
            self._closing = (reason or "forced close", code)
            self._look_whether_sent()
            return
        if self.websocket is not None:
            self.websocket.close(code, reason=reason or "forced close")
            return
        self._ended(reason or "forced close")

    def _ended(self, reason: str) -> None:
        if self._ended_already:
            return
        self._ended_already = True
        self._server.forget(self)
        if self.polling is not None:
            self.polling.end()
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()
        if self.websocket is not None:
            self.websocket.close()
        self._look_whether_sent()
        self._reason = reason
        self._enqueue(None)

    # Inwards: the WebSocket's Receiver

    def message(self, websocket: WebSocket, data: str | bytes) -> None:
        if websocket is self._probe:
            self._probed(websocket, data)
        else:
            self.receive(data)

    def drained(self, websocket: WebSocket) -> None:
        self._look_whether_sent()

    def lost(self, websocket: WebSocket, reason: str) -> None:
        if websocket is self._probe:
            self._probe = None
            self._upgrading = False
            if self._closing is not None:
                self._ended(self._closing[0])
        elif websocket is self.websocket:
            self._ended(reason)

    def receive(self, data: str | bytes) -> None:
        """Take one Engine.IO packet from the client; never blocks."""
        if self.closed:
            return
        kind = data[:1] if isinstance(data, str) else packets.MESSAGE
        if kind == packets.MESSAGE:
            if not self._within_rate():
                self.close(reason="too many events", code=frames.POLICY_VIOLATION)
                return
            self._enqueue(data[1:] if isinstance(data, str) else data)
        elif kind == packets.PONG:
            self._server.heartbeat.pong(self)
        elif kind == packets.CLOSE:
            self.close(reason="client disconnect")
        elif kind not in (packets.NOOP, packets.UPGRADE):
            self.close(reason="parse error", code=frames.PROTOCOL_ERROR)

    def _within_rate(self) -> bool:
        now, limits = time.monotonic(), self._server.limits
        if self._bucket is None:
            self._bucket = TokenBucket(limits.events_per_second, limits.event_burst, now)
        return self._bucket.take(now)

    def _enqueue(self, data: str | bytes | None) -> None:
        if self._inbound is not None:
            self._inbound.append(data)
            return
        self._inbound = deque((data,))
        if self.websocket is not None:
            self.websocket.pause()
        self._server.crew.start(self._work, self._inbound)

    def _work(self, inbound: deque[str | bytes | None]) -> None:
        while inbound:
            data = inbound.popleft()
            if data is None:
                self._server.ended(self, self._reason)
            elif not self.closed:
                self._server.deliver(self, data)
        self._inbound = None
        if self._settled is not None:
            self._settled.set()
        if self.websocket is not None:
            self.websocket.resume()

    def settle(self) -> None:
        """Wait until the packets received so far have been handled."""
        if self._inbound is not None:
            self._settled = Event()
            self._settled.wait()
            self._settled = None

    def fetch(self, polling: PollingQueue) -> list[Packet]:
        """Return what waits for a client that polls."""
        fetched = polling.take()
        self._look_whether_sent()
        return fetched

    # Upgrade from polling (protocol document, "Upgrade")

    def probe(self, websocket: WebSocket) -> None:
        """Let a WebSocket try to take over (EngineServer.judge_websocket has seen that it may)."""
        self._probe = websocket

    def _probed(self, websocket: WebSocket, data: str | bytes) -> None:
        if not self._upgrading and data == "2probe":
            self._upgrading = True
            websocket.send(packets.PROBE_REPLY.frame)
            if self.polling is not None and self.polling.polled:
                self.polling.put(packets.NOOP_PACKET)  # ends the request that waits
        elif self._upgrading and data == packets.UPGRADE:
            self._switch(websocket)
        else:
            websocket.close(frames.PROTOCOL_ERROR)

    def _switch(self, websocket: WebSocket) -> None:
        polling, self.polling = self.polling, None
        self.websocket, self._probe, self._upgrading = websocket, None, False
        if polling is not None:
            for packet in polling.take():
                if packet is not packets.NOOP_PACKET:
                    websocket.send(packet.frame)
            polling.end()
        self._look_whether_sent()
        self._server.upgraded(self)
        if self._closing is not None:
            reason, code = self._closing
            websocket.close(code, reason=reason)

    @property
    def probing(self) -> bool:
        """Whether a WebSocket is asking to take over."""
        return self._probe is not None

    @property
    def upgrading(self) -> bool:
        """Whether the upgrade is agreed on, so that polling has to stop."""
        return self._upgrading

    def give_up_upgrade(self, websocket: WebSocket) -> None:
        """End an upgrade that did not come to its end in time."""
        if websocket is self._probe:
            websocket.close(frames.POLICY_VIOLATION)


# A session that has ended while its client was between two polls: what it still has to hear is kept for so long.
LEAVE_S = 10.0

_PLAIN_TEXT = [("Content-Type", "text/plain; charset=UTF-8"), ("Cache-Control", "no-store")]


class EngineServer(engineio.Server):
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
        self.tag = handover.new_tag()  # ends the ids of this worker's sessions
        self.heartbeat = Heartbeat(ping_interval_s, ping_timeout_s)
        self.crew = Crew()
        self.sockets: dict[str, EngineSocket] = {}
        self._leaving: dict[str, PollingQueue] = {}
        self.on_upgraded: Callable[[Any], object] = lambda _: None  # told the session's connection
        self.sids_begin = ""  # so that a proxy in front of several nodes can tell whose session it is

    # Sessions

    def open(self, handshake: Handshake) -> EngineSocket:
        """Begin a session, still without a transport."""
        sid = f"{self.sids_begin}{self.generate_id()}.{self.tag}"
        self.gate.opened(handshake.address)
        socket = self.sockets[sid] = EngineSocket(self, sid, handshake)
        self.heartbeat.add(socket)
        return socket

    def _opening(self, socket: EngineSocket, upgrades: Sequence[str]) -> Packet:
        """Return a session's OPEN packet."""
        return packets.encode_open(
            socket.sid, upgrades, self.ping_interval, self.ping_timeout, self.limits.max_message_bytes
        )

    def forget(self, socket: EngineSocket) -> None:
        """Take a session that has ended out of the table."""
        self.sockets.pop(socket.sid, None)
        self.gate.closed(socket.address)
        self.heartbeat.discard(socket)
        if socket.polling is not None:
            self._leaving[socket.sid] = socket.polling
            gevent.spawn_later(LEAVE_S, self._leaving.pop, socket.sid, None)

    def upgraded(self, socket: EngineSocket) -> None:
        """Tell the Socket.IO server that a session's transport is now a WebSocket."""
        if socket.session is not None:
            self.on_upgraded(socket.session)

    def deliver(self, socket: EngineSocket, data: str | bytes) -> None:
        """Hand a MESSAGE to the Socket.IO server. An error ends this session, and no other."""
        try:
            self.handlers["message"](socket, data)
        except Exception:
            _log.exception("unexpected error in a message; closing its connection")
            socket.close(reason="server error")

    def ended(self, socket: EngineSocket, reason: str) -> None:
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
        self.crew.start(work, *args)

    def drain(self, seconds: float) -> None:
        """Close every transport with 1012 (service restart), evenly over that time, so that clients do not come back
        elsewhere all at once. New sessions must already be refused (Gate.draining)."""
        sockets = list(self.sockets.values())
        started = time.monotonic()
        turn = Turn()
        for index, socket in enumerate(sockets):
            turn.give_way()
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
        tag = handover.tag_of(request.sid or "")
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
            socket = self.open(Handshake.of(environ, self.gate.trusted_proxies))
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
        socket = self.open(Handshake.of(environ, self.gate.trusted_proxies))
        polling = socket.polling = PollingQueue(self.limits.send_backlog_bytes)
        polling.put(self._opening(socket, self.gate.upgrades))
        self.handlers["connect"](socket, socket.handshake)
        return _payload(polling.take())

    def _poll(self, socket: EngineSocket, polling: PollingQueue, environ: dict[str, Any]) -> Response:
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

    def _post(self, socket: EngineSocket, polling: PollingQueue, environ: dict[str, Any]) -> Response:
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
