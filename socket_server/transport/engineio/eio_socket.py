"""One Engine.IO session: its transport, its upgrade, and its packets in order.

Source: github.com/socketio/engine.io-protocol.
"""

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from engineio.packet import Packet as UpstreamPacket
from gevent.event import Event

from socket_server.transport.engineio import frames
from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.engineio.polling import PollingQueue
from socket_server.transport.engineio.rate import TokenBucket
from socket_server.transport.engineio.websocket import WebSocket
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.packets import Packet

if TYPE_CHECKING:
    from socket_server.transport.engineio.server import EngineIOServer


class EioSocket:
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
        "connection",
        "deadline",
        "handshake",
        "polling",
        "sid",
        "websocket",
    )

    def __init__(self, server: "EngineIOServer", sid: str, handshake: Handshake) -> None:
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
        self.connection: Any = None  # the Socket.IO server's Connection

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
        self._server.greenlet_pool.start(self._work, self._inbound)

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
        """Let a WebSocket try to take over (EngineIOServer.judge_websocket has seen that it may)."""
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
