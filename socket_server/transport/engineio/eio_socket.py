"""One Engine.IO session: its state, its transport, and the packets that it receives and sends.

Source: github.com/socketio/engine.io-protocol.
"""

import time
from typing import TYPE_CHECKING, Any

from engineio.packet import Packet as UpstreamPacket
from gevent.event import Event

from socket_server.transport.engineio import frames, packets
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.inbound import END, Inbound
from socket_server.transport.engineio.packets import Packet
from socket_server.transport.engineio.polling_queue import PollingQueue
from socket_server.transport.engineio.rate import TokenBucket
from socket_server.transport.engineio.states import Input, State, allows, next_state
from socket_server.transport.engineio.upgrade import Upgrade
from socket_server.transport.engineio.websocket import WebSocket

if TYPE_CHECKING:
    from socket_server.transport.engineio.server import EngineIOServer

# The time for an upgrade; an unauthenticated client has AUTH_TIMEOUT if that is less. After it, polling goes on.
UPGRADE_TIMEOUT_S = 10.0

# The rest of that time if the session of an unauthenticated client is closed: half an upgrade must not hold a place.
UNAUTHENTICATED_CLOSING_S = 1.0


class EioSocket:
    """One Engine.IO session (see states.py for its states).

    Messages are handled one after the other by a greenlet of the pool. While one is being handled, no more are read.
    """

    __slots__ = (
        "_bucket",
        "_inbound",
        "_reason",
        "_sent",
        "_server",
        "_state",
        "_upgrade",
        "address",
        "connection",
        "deadline",
        "handshake",
        "polling",
        "sid",
        "websocket",
    )

    def __init__(self, server: "EngineIOServer", sid: str, handshake: Handshake) -> None:
        self._server = server
        self._state = State.OPENING
        self.sid = sid
        self.address = handshake.address
        self.handshake: Handshake | None = handshake  # None once the Socket.IO CONNECT has been handled
        self.websocket: WebSocket | None = None  # in the state WEBSOCKET, and after it
        self.polling: PollingQueue | None = None  # in all states between OPENING and WEBSOCKET
        self._upgrade: Upgrade | None = None  # in the states PROBING, UPGRADING and CLOSING
        self._inbound: Inbound | None = None  # while messages are being handled
        self._bucket: TokenBucket | None = None  # of messages; made at the first one
        self._sent: Event | None = None  # made by wait_until_sent()
        self._reason = ""  # why the session ended
        self.deadline: Any = None  # of the Socket.IO CONNECT; set by the Socket.IO server
        self.connection: Any = None  # the Socket.IO Connection

    def _advance(self, event: Input) -> None:
        self._state = next_state(self._state, event)

    @property
    def closed(self) -> bool:
        """Whether the session has ended, or will end with its upgrade."""
        return self._state in (State.CLOSING, State.ENDED)

    @property
    def upgraded(self) -> bool:
        """Whether the transport is a WebSocket."""
        return self.websocket is not None

    @property
    def authenticated(self) -> bool:
        return self.connection is not None and self.connection.user_id is not None

    # Transports

    def open_websocket(self, websocket: WebSocket) -> None:
        self._advance(Input.OPEN_WEBSOCKET)
        self.websocket = websocket

    def open_polling(self, polling: PollingQueue) -> None:
        self._advance(Input.OPEN_POLLING)
        self.polling = polling

    @property
    def may_upgrade(self) -> bool:
        """Whether a WebSocket may connect to take over from polling."""
        return allows(self._state, Input.CONNECT_PROBE)

    @property
    def upgrading(self) -> bool:
        """Whether polling requests are answered with NOOP, so that the client stops polling."""
        return self._state in (State.UPGRADING, State.CLOSING)

    def probe(self, websocket: WebSocket) -> None:
        """Let a WebSocket take over. `may_upgrade` must be true."""
        self._advance(Input.CONNECT_PROBE)
        self._upgrade = Upgrade(websocket, self._time_for_upgrade(UPGRADE_TIMEOUT_S))

    def _time_for_upgrade(self, timeout_s: float) -> float:
        return timeout_s if self.authenticated else min(timeout_s, self._server.limits.auth_timeout_s)

    def _probe_message(self, upgrade: Upgrade, data: str | bytes) -> None:
        if data == "2probe" and allows(self._state, Input.PROBE):
            self._advance(Input.PROBE)
            upgrade.websocket.send(packets.PROBE_REPLY.frame)
            if self.polling is not None and self.polling.polled:
                self.polling.put(packets.NOOP_PACKET)  # ends the request that waits
        elif data == packets.UPGRADE and allows(self._state, Input.UPGRADE):
            self._complete_upgrade(upgrade)
        else:
            upgrade.websocket.close(frames.PROTOCOL_ERROR)

    def _complete_upgrade(self, upgrade: Upgrade) -> None:
        websocket, polling = upgrade.websocket, self.polling
        queued = [] if polling is None else [packet for packet in polling.take() if packet is not packets.NOOP_PACKET]
        if self._state is State.CLOSING:
            self._send_queued(websocket, queued)
            websocket.close(upgrade.close_code, reason=upgrade.close_reason)  # reported by lost()
            return
        # The state first: the WebSocket may be lost in a write, and the session then ends with it.
        self._advance(Input.UPGRADE)
        upgrade.stop()
        self.websocket, self.polling, self._upgrade = websocket, None, None
        if polling is not None:
            polling.end()
        self._send_queued(websocket, queued)
        self._notify_sent()
        if not self.closed:
            self._server.upgraded(self)

    @staticmethod
    def _send_queued(websocket: WebSocket, queued: list[Packet]) -> None:
        for packet in queued:
            if not websocket.send(packet.frame):
                return  # the loss was reported by lost()

    # Sending

    def send(self, packet: UpstreamPacket) -> bool:
        """Write a packet to the client, or queue it. Never blocks. Return False if the session has ended."""
        ours = packets.wrap(packet)
        if self.websocket is not None:
            return self.websocket.send(ours.frame)
        if self.polling is None or self._state is State.ENDED:
            return False
        if not self.polling.put(ours):
            self.polling.take()  # the client recovers what it missed, on its next connection
            self._end("slow consumer")
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
        """Block until the client has taken everything that was sent; return False if the session has ended."""
        while self._unsent and not self.closed:
            self._sent = self._sent or Event()
            self._sent.wait()
        return not self.closed

    def _notify_sent(self) -> None:
        if self._sent is not None and (self.closed or not self._unsent):
            self._sent.set()
            self._sent = None

    def take_unsent(self, polling: PollingQueue) -> list[Packet]:
        """Return what is queued for a client that polls."""
        taken = polling.take()
        self._notify_sent()
        return taken

    # Heartbeat

    def ping(self) -> None:
        self.send(packets.PING_PACKET)

    def overdue(self) -> None:
        self.close(reason="ping timeout")

    # Receiving, also as the Receiver of its WebSockets

    def message(self, websocket: WebSocket, data: str | bytes) -> None:
        if self._upgrade is not None and websocket is self._upgrade.websocket:
            self._probe_message(self._upgrade, data)
            return
        try:
            self.receive(data)
        except ValueError:
            self.close(reason="parse error", code=frames.PROTOCOL_ERROR)

    def receive(self, data: str | bytes) -> None:
        """Take one packet from the client. Never blocks. Raises ValueError if it is not of protocol 4."""
        if self.closed:
            return
        if isinstance(data, str):
            data = packets.decode_text(data)
        kind = data[:1] if isinstance(data, str) else packets.MESSAGE
        if kind == packets.MESSAGE:
            if not self._within_rate():
                self.close(reason="too many events", code=frames.POLICY_VIOLATION)
                return
            self._handle_later(data[1:] if isinstance(data, str) else data)
        elif kind == packets.PONG:
            self._server.heartbeat.pong(self)
        elif kind == packets.CLOSE:
            self.close(reason="client disconnect")
        elif kind not in (packets.NOOP, packets.UPGRADE):
            raise ValueError("unknown packet type")

    def drained(self, websocket: WebSocket) -> None:
        self._notify_sent()

    def _within_rate(self) -> bool:
        now, limits = time.monotonic(), self._server.limits
        if self._bucket is None:
            self._bucket = TokenBucket(limits.events_per_second, limits.event_burst, now)
        return self._bucket.take(now)

    def _handle_later(self, message: str | bytes | None) -> None:
        if self._inbound is not None:
            self._inbound.append(message)
            return
        self._inbound = Inbound(message)
        if self.websocket is not None:
            self.websocket.pause()
        self._server.greenlet_pool.start(self._handle_all, self._inbound)

    def _handle_all(self, inbound: Inbound) -> None:
        inbound.handle_all(self._handle)
        self._inbound = None
        if self.websocket is not None:
            self.websocket.resume()

    def _handle(self, message: str | bytes | None) -> None:
        if message is END:
            self._server.ended(self, self._reason)
        elif not self.closed:
            self._server.deliver(self, message)

    def wait_until_handled(self) -> None:
        """Block until the packets received so far have been handled."""
        if self._inbound is not None:
            self._inbound.wait_until_handled()

    # Ending

    def close(self, wait: bool = False, abort: bool = False, reason: str | None = None, code: int = frames.NORMAL) -> None:
        """Close the transport. The official client takes that as a lost connection and reconnects by itself.

        abort: at once, without a close frame, and without keeping what a polling client has not fetched. code: the
        WebSocket close code. wait: a parameter of python-engineio's close(), ignored.
        """
        reason = reason or "forced close"
        if self._state is State.ENDED:
            return
        if abort:
            self._end(reason, abort=True)
        elif self._state is State.WEBSOCKET and self.websocket is not None:
            self.websocket.close(code, reason=reason)  # reported by lost()
        elif self._upgrade is not None and self._state is State.UPGRADING:
            # The client has stopped polling and does not read the WebSocket yet: what it was sent would be lost.
            self._advance(Input.CLOSE)
            self._upgrade.close_code, self._upgrade.close_reason = code, reason
            if not self.authenticated:
                self._upgrade.limit(self._time_for_upgrade(UNAUTHENTICATED_CLOSING_S))
            self._notify_sent()
        elif allows(self._state, Input.CLOSE):
            self._end(reason)

    def lost(self, websocket: WebSocket, reason: str) -> None:
        upgrade = self._upgrade
        if upgrade is not None and websocket is upgrade.websocket:
            upgrade.stop()
            self._upgrade = None
            if self._state is State.CLOSING:
                self._end(upgrade.close_reason)
            elif allows(self._state, Input.PROBE_LOST):
                self._advance(Input.PROBE_LOST)
        elif websocket is self.websocket:
            self._end(reason)

    def _end(self, reason: str, *, abort: bool = False) -> None:
        if self._state is State.ENDED:
            return
        self._advance(Input.END)
        self._reason = reason
        self._server.forget(self, keep_unsent=not abort)
        if self.polling is not None:
            self.polling.end()
        upgrade, self._upgrade = self._upgrade, None
        if upgrade is not None:
            upgrade.stop()
        for websocket in (self.websocket, None if upgrade is None else upgrade.websocket):
            if websocket is not None and abort:
                websocket.abort()
            elif websocket is not None:
                websocket.close()
        self._notify_sent()
        self._handle_later(END)
