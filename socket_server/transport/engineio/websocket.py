"""A WebSocket connection that costs little while it is idle: no greenlet, no buffer, no request.

A read watcher of gevent's event loop calls it when bytes arrive. Its callbacks run in the hub and never block. Frames are
written straight to the socket; what the kernel does not take waits in a bounded send buffer.
"""

import socket
import ssl
import time
from typing import Any, Protocol

import gevent
from gevent.event import Event

from socket_server import log
from socket_server.transport.engineio import frames
from socket_server.transport.engineio.frame_reader import FrameReader
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.linger import Linger
from socket_server.transport.engineio.rate import TokenBucket
from socket_server.transport.engineio.send_buffer import TRY_AGAIN, WOULD_BLOCK, SendBuffer

_log = log.logger("Socket.IO")

_READ = 1  # libev's EV_READ, as gevent's loop.io() takes it
_RECV_BYTES = 65_536

HALF_SENT_S = 20.0  # for the rest of a message that has begun


class Receiver(Protocol):
    """The owner of a WebSocket. Every method is called from the hub and must not block."""

    def message(self, websocket: "WebSocket", data: str | bytes) -> None:
        """A whole message arrived."""

    def drained(self, websocket: "WebSocket") -> None:
        """The send buffer is empty again."""

    def lost(self, websocket: "WebSocket", reason: str) -> None:
        """The connection has ended, by either side. Called once."""


class WebSocket:
    """One open WebSocket over a non-blocking socket, which it owns."""

    __slots__ = (
        "_bucket",
        "_ended",
        "_fd",
        "_half_sent",
        "_limits",
        "_linger",
        "_reader",
        "_receiver",
        "_send_buffer",
        "_sock",
        "_watch_read",
    )

    def __init__(self, sock: socket.socket, receiver: Receiver, limits: Limits) -> None:
        self._sock: socket.socket | None = sock
        self._fd = -1 if isinstance(sock, ssl.SSLSocket) else sock.fileno()
        self._receiver: Receiver | None = receiver  # None once frames are no longer exchanged
        self._reader: FrameReader | None = FrameReader(limits.max_message_bytes, int(limits.frame_burst))
        self._limits = limits
        self._bucket: TokenBucket | None = None  # of frames; made at the first one
        self._half_sent: Any = None  # a timer, while a message has begun and is not complete
        self._send_buffer: SendBuffer | None = None
        self._watch_read: Any = gevent.get_hub().loop.io(sock.fileno(), _READ)
        self._linger: Linger | None = None
        self._ended: Event | None = None  # made by wait_for_end()

    @property
    def open(self) -> bool:
        """Whether frames are still sent: neither side has closed."""
        return self._receiver is not None

    @property
    def unsent(self) -> bool:
        """Whether frames wait in the send buffer."""
        return self._send_buffer is not None

    def start(self, received: bytes = b"") -> None:
        """Begin to read. received: bytes that arrived behind the handshake request."""
        if received:
            gevent.get_hub().loop.run_callback(self._received, received)
        self.resume()

    def pause(self) -> None:
        """Stop reading. The kernel's buffers fill, and the client has to wait (backpressure)."""
        if self._watch_read is not None:
            self._watch_read.stop()

    def resume(self) -> None:
        """Read again."""
        if self._watch_read is not None:
            self._watch_read.start(self._readable)

    # Writing

    def send(self, frame: bytes) -> bool:
        """Write a frame, or buffer what the kernel does not take. Never blocks.

        Return False if the connection has ended, or ends now because the send buffer is full (a slow consumer).
        """
        if self._receiver is None or self._sock is None:
            return False
        if self._send_buffer is not None:
            return self._buffer(frame)
        # The hot path of the whole server: one system call.
        try:
            sent = self._sock.send(frame)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self._end("transport error")
            return False
        return sent == len(frame) or self._buffer(frame[sent:])

    @property
    def writable_fd(self) -> int:
        """The descriptor that a frame may be written to without send(); -1 if send() must be used."""
        return self._fd if self._send_buffer is None and self._receiver is not None else -1

    def wrote(self, frame: bytes, taken: int) -> bool:
        """Complete a write to `writable_fd` that was partial or failed. Return what send() returns.

        taken: bytes written, or a negative errno. Must be called before anything else is sent.
        """
        if self._receiver is None:
            return False
        if taken < 0 and -taken not in TRY_AGAIN:
            self._end("transport error")
            return False
        return self._buffer(frame[max(0, taken) :])

    def _buffer(self, frame: bytes) -> bool:
        if self._sock is None:
            return False
        if self._send_buffer is None:
            self._send_buffer = SendBuffer(self._sock.fileno(), self._writable)
        self._send_buffer.append(frame)
        # A single frame may be larger than the limit: closed over it, the client would reconnect and be closed again.
        if self._send_buffer.size > self._limits.send_backlog_bytes and not self._send_buffer.single:
            _log.info("slow consumer closed: backlog_bytes=%d", self._send_buffer.size)
            self._end("slow consumer")
            return False
        return True

    def _writable(self) -> None:
        if self._send_buffer is None or self._sock is None:
            return
        try:
            if not self._send_buffer.flush(self._sock):
                return
        except OSError:
            self._end("transport error")
            return
        self._drop_send_buffer()
        if self._linger is not None:
            self._shut_down_writing()
        if self._receiver is not None:
            self._receiver.drained(self)

    def _drop_send_buffer(self) -> None:
        if self._send_buffer is not None:
            self._send_buffer.close()
            self._send_buffer = None

    # Reading

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            data = sock.recv(_RECV_BYTES)
            # TLS decrypts a record at a time; decrypted bytes that are left do not make the socket readable again.
            while isinstance(sock, ssl.SSLSocket) and (more := sock.pending()):
                data += sock.recv(more)
        except WOULD_BLOCK:
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
            self._check_rate_and_progress(self._reader, messages)
            self._handle(messages)
        except Exception:
            # An exception in a hub callback must end this connection and no other.
            _log.exception("unexpected error while receiving")
            self._end("transport error")

    def _handle(self, messages: list[frames.Message]) -> None:
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
            self.send(pongs)  # one write for all pings that arrived together

    def _check_rate_and_progress(self, reader: FrameReader, messages: list[frames.Message]) -> None:
        """Close a client that sends too many frames, or leaves a message half sent.

        Control frames between its fragments do not complete a message.
        """
        if reader.frames:
            now, limits = time.monotonic(), self._limits
            if self._bucket is None:
                self._bucket = TokenBucket(limits.frames_per_second, limits.frame_burst, now)
            if not self._bucket.take(now, reader.frames):
                self.close(frames.POLICY_VIOLATION, "too many frames", reason="too many frames")
                return
        completed = any(isinstance(message, (str, bytes)) for message in messages) if reader.fragmented else messages
        if completed or not reader.partial:
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
        """Send a close frame, and close the socket when the peer has closed too or after LINGER_S seconds."""
        if self._receiver is None:
            return
        if not self.send(frames.encode_close(code, text)):
            return  # the connection ended in this write, and the receiver was told
        receiver, self._receiver, self._reader = self._receiver, None, None
        self._stop_half_sent()
        self._linger = Linger(self.abort)
        if self._send_buffer is None:
            self._shut_down_writing()
        self.resume()
        receiver.lost(self, reason)

    def abort(self, reason: str = "transport close") -> None:
        """Close the socket at once, without a close frame."""
        self._end(reason)

    def wait_for_end(self) -> None:
        """Block until the socket has been closed."""
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
        self._drop_send_buffer()
        self._stop_half_sent()
        if self._linger is not None:
            self._linger.cancel()
        sock.close()  # after its watchers: they could otherwise watch the descriptor's next owner
        receiver, self._receiver, self._reader = self._receiver, None, None
        if receiver is not None:
            receiver.lost(self, reason)
        if self._ended is not None:
            self._ended.set()
