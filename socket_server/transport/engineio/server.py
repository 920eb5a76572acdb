"""The Engine.IO server (protocol 4) on gevent: its sessions, and the acceptance of WebSockets.

python-engineio's server has a writer greenlet, a ping greenlet, a queue and the whole handshake request for each client.
This one has event loop watchers and one heartbeat. Source: github.com/socketio/engine.io-protocol; errors have the bodies
of the Node.js server, which clients know.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import engineio
import gevent
from engineio.packet import Packet as UpstreamPacket

from socket_server import log
from socket_server.limited_log import LimitedLog
from socket_server.runtime.greenlet_pool import GreenletPool
from socket_server.runtime.time_slice import TimeSlice
from socket_server.transport.engineio import frames, packets
from socket_server.transport.engineio.departed import DepartedSessions
from socket_server.transport.engineio.eio_socket import EioSocket
from socket_server.transport.engineio.gate import BAD_REQUEST, FULL, PATH, UNKNOWN_SID, Gate, Refusal, Request
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.heartbeat import Heartbeat
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.packets import Packet
from socket_server.transport.engineio.places import Places
from socket_server.transport.engineio.polling_requests import PollingRequests, Response, StartResponse
from socket_server.transport.engineio.websocket import WebSocket
from socket_server.transport.http.handover import worker_tag

_log = log.logger("Socket.IO")

# Unauthenticated sessions that are closed at each handshake while file descriptors are scarce.
_EVICTED_FOR_DESCRIPTORS = 32


class EngineIOServer(engineio.Server):
    """The sessions of this process. The HTTP server passes WebSocket requests, and WSGI passes polling requests."""

    def __init__(self, gate: Gate, ping_interval_s: float, ping_timeout_s: float, limits: Limits) -> None:
        super().__init__(
            async_mode="gevent",
            logger=logging.getLogger("engineio.server"),
            monitor_clients=False,
            cors_allowed_origins=[],  # decided by the gate
            ping_interval=ping_interval_s,
            ping_timeout=ping_timeout_s,
        )
        self.gate = gate
        self.limits = limits
        self.tag = worker_tag.new_tag()  # the end of this worker's session ids
        self.sid_prefix = ""  # the beginning of this node's session ids, by which a proxy can choose the node
        self.heartbeat = Heartbeat(ping_interval_s, ping_timeout_s)
        self.greenlet_pool = GreenletPool()
        self.sockets: dict[str, EioSocket] = {}
        self.departed = DepartedSessions()
        self.on_upgraded: Callable[[Any], object] = lambda _: None  # called with the session's Connection
        self._places = Places(gate.max_sessions, self._evict)
        self._polling = PollingRequests(self)
        self._log_eviction = LimitedLog(_log.info, "more unauthenticated sessions closed for newer ones")

    # Sessions

    def judge(self, request: Request, environ: Mapping[str, Any]) -> Refusal | None:
        """Return why a request is refused; None: it is accepted."""
        return self.gate.judge(request, environ, self._places.unavailable)

    def refuse_without_descriptors(self, environ: Mapping[str, Any]) -> Refusal:
        """Return and log the refusal of a new session while file descriptors are scarce.

        Closes the oldest unauthenticated sessions, which hold some: when the client retries, there may be enough.
        """
        self._places.evict_oldest(_EVICTED_FOR_DESCRIPTORS)
        self.gate.log_refusal(FULL, environ)
        return FULL

    def open(self, handshake: Handshake) -> EioSocket:
        """Begin a session, without a transport. judge() must have accepted its request."""
        sid = f"{self.sid_prefix}{self.generate_id()}.{self.tag}"
        socket = EioSocket(self, sid, handshake)
        self._places.take(socket, handshake.size)
        self.gate.addresses.opened(handshake.address)
        self.sockets[sid] = socket
        self.heartbeat.add(socket)
        return socket

    def connected(self, socket: EioSocket) -> None:
        """Tell the Socket.IO server that a session has its transport."""
        self.handlers["connect"](socket, socket.handshake)

    def authenticated(self, socket: EioSocket) -> None:
        """Note that a session is authenticated. May be called again."""
        self._places.authenticated(socket)

    def upgraded(self, socket: EioSocket) -> None:
        """Tell the Socket.IO server that a session's transport is now a WebSocket."""
        if socket.connection is not None:
            self.on_upgraded(socket.connection)

    def deliver(self, socket: EioSocket, data: str | bytes) -> None:
        """Pass a MESSAGE to the Socket.IO server. An error there ends this session and no other."""
        try:
            self.handlers["message"](socket, data)
        except Exception:
            _log.exception("unexpected error in a message; closing its connection")
            socket.close(reason="server error")

    def forget(self, socket: EioSocket, *, keep_unsent: bool) -> None:
        """Remove a session that has ended. keep_unsent: keep what a polling client has not fetched, for a while."""
        self.sockets.pop(socket.sid, None)
        self._places.release(socket)
        self.gate.addresses.closed(socket.address)
        self.heartbeat.discard(socket)
        if keep_unsent and socket.polling is not None:
            self.departed.add(socket.sid, socket.polling)

    def ended(self, socket: EioSocket, reason: str) -> None:
        """Tell the Socket.IO server that a session has ended."""
        try:
            self.handlers["disconnect"](socket, reason)
        except Exception:
            _log.exception("unexpected error in a disconnect")

    def _evict(self, socket: Any) -> None:
        self._log_eviction("closed: unauthenticated, its place is needed, address=%s", socket.address)
        socket.close(abort=True, reason="evicted")

    def encode_open(self, socket: EioSocket, upgrades: Sequence[str]) -> Packet:
        """Return a session's OPEN packet."""
        return packets.encode_open(
            socket.sid, upgrades, self.ping_interval, self.ping_timeout, self.limits.max_message_bytes
        )

    def in_background(self, work: Callable[..., object], *args: Any) -> None:
        """Run work(*args) in a greenlet of the pool. It may block."""
        self.greenlet_pool.start(work, *args)

    def drain(self, seconds: float) -> None:
        """Close every transport with 1012 (service restart), evenly over this time, so that the clients do not all
        reconnect at once. `Gate.draining` must be set before, so that no new session begins."""
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
        """Return the tag of the worker that has the session of this request; None if this worker must answer it.

        This worker also answers a request that is refused.
        """
        if "sid=" not in environ["QUERY_STRING"] or not environ["PATH_INFO"].startswith(PATH):
            return None
        request = Request.of(environ)
        tag = worker_tag.tag_of(request.sid or "")
        if tag is None or tag == self.tag or self.judge(request, environ) is not None:
            return None
        return tag

    # WebSockets

    def judge_websocket(self, environ: Mapping[str, Any]) -> Refusal | None:
        """Return why a WebSocket request is refused, before its upgrade; None: it is accepted."""
        request = Request.of(environ)
        refusal = self.judge(request, environ)
        if refusal is not None or request.sid is None:
            return refusal
        socket = self.sockets.get(request.sid)
        if socket is None:
            return UNKNOWN_SID
        return None if socket.may_upgrade else BAD_REQUEST

    def accept_websocket(self, environ: Mapping[str, Any], sock: Any, response: bytes, received: bytes) -> WebSocket:
        """Take over a socket whose request judge_websocket() has accepted, in the same greenlet without a switch between.

        response: the end of the WebSocket handshake, to be sent. received: bytes that arrived behind the request.
        """
        request = Request.of(environ)
        if request.sid is None:
            socket = self.open(self.gate.handshakes.read(environ))
            websocket = WebSocket(sock, socket, self.limits)
            socket.open_websocket(websocket)
            self.connected(socket)  # before the write, which ends the session of a client that has gone
            websocket.send(response + self.encode_open(socket, ()).frame)
        else:
            socket = self.sockets[request.sid]
            websocket = WebSocket(sock, socket, self.limits)
            socket.probe(websocket)
            websocket.send(response)
        websocket.start(received)
        return websocket

    # Polling

    def judge_body(self, environ: dict[str, Any]) -> tuple[int, Response | None]:
        """Return the largest body that a request may have, in bytes, and the response that refuses a larger one."""
        return self._polling.judge_body(environ)

    def handle_request(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        """Serve a polling request, as a WSGI application."""
        return self._polling.handle(environ, start_response)

    # Called by python-socketio

    def send_packet(self, sid: str, pkt: UpstreamPacket) -> None:
        """Send a packet to a session. Unlike python-engineio's, it never blocks."""
        socket = self.sockets.get(sid)
        if socket is not None:
            socket.send(pkt)

    def disconnect(self, sid: str | None = None) -> None:
        """Close one session, or (None) all."""
        for socket in list(self.sockets.values()) if sid is None else filter(None, [self.sockets.get(sid)]):
            socket.close()
