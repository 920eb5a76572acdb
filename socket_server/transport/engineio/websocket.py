"""A WebSocket connection that costs nothing while it is idle: no greenlet, no buffer, no request.

A read watcher of gevent's loop wakes it; its callbacks run in the hub and never block. Writing is non-blocking, straight
to the socket; what the kernel does not take waits in a bounded backlog, in order, and a write watcher that exists only
meanwhile drains it.
"""

import errno
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.event import Event

from socket_server import log
from socket_server.transport.engineio import frames
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.rate import TokenBucket

_log = log.logger("Socket.IO")

_READ, _WRITE = 1, 2  # libev's EV_READ and EV_WRITE, as gevent's loop.io() takes them
_RECV_BYTES = 65_536
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_TRY_AGAIN = (errno.EAGAIN, errno.EINTR)

# How long a closing connection waits for the peer to close too, and how much it throws away meanwhile. Closing at once
# would make the kernel answer unread bytes with a reset, which can destroy the last ones sent (RFC 6455, 7.1.1).
LINGER_S = 2.0
LINGER_BYTES = 1_048_576

# A message that has begun must be whole within this.
HALF_SENT_S = 20.0


class Receiver(Protocol):
    """Who a WebSocket belongs to. All of it is called from the hub and must not block."""

    def message(self, websocket: "WebSocket", data: str | bytes) -> None:
        """One whole message arrived."""

    def drained(self, websocket: "WebSocket") -> None:
        """The kernel has taken all that was waiting."""

    def lost(self, websocket: "WebSocket", reason: str) -> None:
        """The connection has ended, by whichever side. Called once."""


class WebSocket:
    """One open WebSocket over a non-blocking socket, which it owns from now on."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_bucket",
        "_ended",
        "_fd",
        "_half_sent",
        "_limits",
        "_linger",
        "_reader",
        "_receiver",
        "_sock",
        "_watch_read",
        "_watch_write",
    )

    def __init__(self, sock: socket.socket, receiver: Receiver, limits: Limits) -> None:
        self._sock: socket.socket | None = sock
        self._fd = -1 if isinstance(sock, ssl.SSLSocket) else sock.fileno()
        self._receiver: Receiver | None = receiver
        self._reader: frames.FrameReader | None = frames.FrameReader(limits.max_message_bytes, int(limits.frame_burst))
        self._limits = limits
        self._bucket: TokenBucket | None = None  # from the first frame on
        self._half_sent: Any = None  # a timer, while the stream stands inside a message
        self._backlog: deque[bytes] | None = None
        self._backlog_bytes = 0
        self._watch_read: Any = gevent.get_hub().loop.io(sock.fileno(), _READ)
        self._watch_write: Any = None
        self._linger: _Linger | None = None
        self._ended: Event | None = None  # set at the end, where somebody waits for it

    @property
    def open(self) -> bool:
        """Whether frames still go out: not after close(), nor after the peer closed."""
        return self._receiver is not None

    @property
    def unsent(self) -> bool:
        """Whether something waits for the kernel to take it."""
        return self._backlog is not None

    def start(self, received: bytes = b"") -> None:
        """Begin to listen. received: bytes that came in with the handshake request."""
        if received:
            gevent.get_hub().loop.run_callback(self._received, received)
        self.resume()

    def pause(self) -> None:
        """Stop reading: the kernel's buffers fill and the client has to wait (backpressure)."""
        if self._watch_read is not None:
            self._watch_read.stop()

    def resume(self) -> None:
        """Read again."""
        if self._watch_read is not None:
            self._watch_read.start(self._readable)

    # Writing

    def send(self, frame: bytes) -> bool:
        """Write one frame, now or (in order) as soon as the kernel takes it. Never blocks.

        Return False where the connection has ended, or ends now because its backlog is full (a slow consumer).
        """
        if self._receiver is None or self._sock is None:
            return False
        if self._backlog is not None:
            return self._line_up(frame)
        # The hot path of the whole server: everything in one frame, one system call.
        try:
            sent = self._sock.send(frame)
        except _WOULD_BLOCK:
            sent = 0
        except OSError:
            self._end("transport error")
            return False
        return sent == len(frame) or self._line_up(frame[sent:])

    @property
    def writable_fd(self) -> int:
        """Where a frame may be written past send() just now; -1: send() must have it."""
        return self._fd if self._backlog is None and self._receiver is not None else -1

    def wrote(self, frame: bytes, taken: int) -> bool:
        """Go on from such a write where it fell short, before anything else is written. Returns what send() does.

        taken: bytes, or a negative errno.
        """
        if self._receiver is None:
            return False
        if taken < 0 and -taken not in _TRY_AGAIN:
            self._end("transport error")
            return False
        return self._line_up(frame[max(0, taken) :])

    def _line_up(self, frame: bytes) -> bool:
        """Put what the kernel does not take now behind what already waits."""
        sock = self._sock
        if sock is None:
            return False
        if self._backlog is None:
            self._backlog = deque()
            self._watch_write = gevent.get_hub().loop.io(sock.fileno(), _WRITE)
            self._watch_write.start(self._writable)
        waited = bool(self._backlog)
        self._backlog.append(frame)
        self._backlog_bytes += len(frame)
        # One alone may be larger than the limit: cut over it, the client would come back only to be cut again.
        if waited and self._backlog_bytes > self._limits.send_backlog_bytes:
            _log.info("slow consumer cut: backlog_bytes=%d", self._backlog_bytes)
            self._end("slow consumer")
            return False
        return True

    def _writable(self) -> None:
        backlog, sock = self._backlog, self._sock
        if backlog is None or sock is None:
            return
        try:
            while backlog:
                sent = sock.send(backlog[0])
                self._backlog_bytes -= sent
                if sent < len(backlog[0]):
                    backlog[0] = backlog[0][sent:]
                    return
                backlog.popleft()
        except _WOULD_BLOCK:
            return
        except OSError:
            self._end("transport error")
            return
        self._backlog = None
        self._stop_writing()
        if self._linger is not None:
            self._shut_down_writing()
        if self._receiver is not None:
            self._receiver.drained(self)

    def _stop_writing(self) -> None:
        if self._watch_write is not None:
            self._watch_write.stop()
            self._watch_write.close()
            self._watch_write = None

    # Reading

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            data = sock.recv(_RECV_BYTES)
            # TLS decrypts a record at a time: what is left in it does not make the socket readable again.
            while isinstance(sock, ssl.SSLSocket) and (more := sock.pending()):
                data += sock.recv(more)
        except _WOULD_BLOCK:
            return
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self._end("transport close")

    def _received(self, data: bytes) -> None:
        if self._linger is not None:
            if self._linger.discard(len(data)):
                self._end("transport close")
            return
        if self._reader is None:
            return
        try:
            messages = self._reader.feed(data)
            self._watch_progress(whole=bool(messages))
            pongs = b""
            for message in messages:
                if self._receiver is None:
                    return
                match message:
                    case str() | bytes():
                        self._receiver.message(self, message)
                    case frames.Ping(payload):
                        pongs += frames.encode(frames.PONG, payload)
                    case frames.Closed(code):
                        self.close(frames.NORMAL if code is None else code, reason="transport close")
                    case frames.Violation(code, text):
                        self.close(code, text, reason="parse error")
            if pongs:
                self.send(pongs)  # at once, for all that came at once; whoever is being closed needs none
        except Exception:
            # The hub has nobody above it: a fault in one connection must end that connection and no other.
            _log.exception("unexpected error while receiving")
            self._end("transport error")

    def _watch_progress(self, whole: bool) -> None:
        """Cut a client that sends too many frames, or leaves a message half sent."""
        reader = self._reader
        assert reader is not None
        if reader.frames:
            now, limits = time.monotonic(), self._limits
            if self._bucket is None:
                self._bucket = TokenBucket(limits.frames_per_second, limits.frame_burst, now)
            if not self._bucket.take(now, reader.frames):
                self.close(frames.POLICY_VIOLATION, "too many frames", reason="too many frames")
                return
        if whole or not reader.partial:
            self._stop_half_sent()
        if reader.partial and self._half_sent is None:
            self._half_sent = gevent.get_hub().loop.timer(HALF_SENT_S)
            self._half_sent.start(self.close, frames.POLICY_VIOLATION, "message half sent")

    def _stop_half_sent(self) -> None:
        if self._half_sent is not None:
            self._half_sent.stop()
            self._half_sent.close()
            self._half_sent = None

    # Ending

    def close(self, code: int = frames.NORMAL, text: str = "", *, reason: str = "forced close") -> None:
        """Say goodbye with a close frame and let go once the peer has closed too, or after LINGER_S."""
        if self._receiver is None:
            return
        if not self.send(frames.encode_close(code, text)):
            return  # it has ended over its goodbye, and the receiver has been told
        receiver, self._receiver, self._reader = self._receiver, None, None
        self._stop_half_sent()
        self._linger = _Linger(self.abort)
        if self._backlog is None:
            self._shut_down_writing()
        self.resume()
        receiver.lost(self, reason)

    def abort(self) -> None:
        """End at once, without a word."""
        self._end("transport close")

    def wait_for_end(self) -> None:
        """Wait until the socket has been closed."""
        if self._sock is not None:
            self._ended = Event()
            self._ended.wait()

    def _shut_down_writing(self) -> None:
        try:
            if self._sock is not None and not isinstance(self._sock, ssl.SSLSocket):
                self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _end(self, reason: str) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._watch_read.stop()
        self._watch_read.close()
        self._watch_read = None
        self._stop_writing()
        self._stop_half_sent()
        self._backlog = None
        if self._linger is not None:
            self._linger.cancel()
        # The file descriptor must outlive its watchers, or the loop could watch its next owner.
        sock.close()
        receiver, self._receiver, self._reader = self._receiver, None, None
        if receiver is not None:
            receiver.lost(self, reason)
        if self._ended is not None:
            self._ended.set()


class _Linger:
    """The short life of a connection after its close frame."""

    __slots__ = ("_left", "_timer")

    def __init__(self, expire: Callable[[], None]) -> None:
        self._left = LINGER_BYTES
        self._timer = gevent.get_hub().loop.timer(LINGER_S)
        self._timer.start(expire)

    def discard(self, size: int) -> bool:
        """Count bytes thrown away; say whether it is enough."""
        self._left -= size
        return self._left < 0

    def cancel(self) -> None:
        self._timer.stop()
        self._timer.close()
