"""What waits for a client that polls, and the request that waits for it."""

from gevent.event import Event

from socket_server.transport.engineio.packets import Packet


class PollingQueue:
    """Packets in order, bounded, and the one GET request that waits for them.

    A waiting request holds a greenlet; only WebSockets hold none while they are idle.
    """

    __slots__ = ("_bytes", "_max_bytes", "_packets", "_wakeup", "ended", "posting")

    def __init__(self, max_bytes: int) -> None:
        self._packets: list[Packet] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._wakeup: Event | None = None  # while a request waits
        self.posting = False  # a POST request is being handled
        self.ended = False

    @property
    def polled(self) -> bool:
        """Whether a request waits."""
        return self._wakeup is not None

    @property
    def empty(self) -> bool:
        return not self._packets

    def put(self, packet: Packet) -> bool:
        """Queue a packet; return False if that is too much for a client that does not poll."""
        self._packets.append(packet)
        self._bytes += len(packet.payload)
        if self._wakeup is not None:
            self._wakeup.set()
        # A single packet may be larger than the limit: closed over it, the client would reconnect and be closed again.
        return self._bytes <= self._max_bytes or len(self._packets) == 1

    def take(self) -> list[Packet]:
        """Return what is queued, without waiting."""
        taken, self._packets, self._bytes = self._packets, [], 0
        return taken

    def wait(self, timeout_s: float) -> None:
        """Block until a packet is queued, the session has ended, or the timeout has passed."""
        if self._packets or self.ended:
            return
        self._wakeup = Event()
        try:
            self._wakeup.wait(timeout_s)
        finally:
            self._wakeup = None

    def end(self) -> None:
        """Release the request that waits: the session has ended or was upgraded."""
        self.ended = True
        if self._wakeup is not None:
            self._wakeup.set()
