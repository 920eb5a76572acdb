"""The reader of WebSocket frames (RFC 6455 section 5), server side: bytes in, messages out. No sockets and no clock."""

from typing import Final

from socket_server.transport.engineio.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_PAYLOAD,
    MAX_CONTROL_BYTES,
    PING,
    POLICY_VIOLATION,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Closed,
    Message,
    Ping,
    Violation,
    parse_close,
    unmask,
)

# A client may send a message in many fragments, but has no use for many pings: each counts as this number of frames.
CONTROL_WEIGHT: Final = 10


class FrameReader:
    """Turns the bytes that a client sends into messages, however the stream is split.

    It never raises: a Violation is the last message of a stream that it cannot accept. Between messages it holds no buffer.
    """

    __slots__ = ("_buffer", "_fragments", "_kind", "_max_bytes", "_max_frames", "finished", "frames")

    def __init__(self, max_bytes: int, max_frames: int = 500) -> None:
        """max_bytes: of a message, checked against the declared size before the payload is buffered.

        max_frames: in one call of feed(); a ping or a pong counts as CONTROL_WEIGHT frames.
        """
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._buffer = b""
        self._kind = 0  # of the fragmented message that has begun: TEXT or BINARY; 0: none
        self._fragments: bytearray | None = None
        self.finished = False
        self.frames = 0  # in the last call of feed(), counted as for max_frames

    @property
    def partial(self) -> bool:
        """Whether a frame or a fragmented message has begun and is not complete."""
        return bool(self._buffer) or self._kind != 0

    @property
    def fragmented(self) -> bool:
        """Whether a fragmented message has begun and is not complete."""
        return self._kind != 0

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that these bytes complete. After a Closed or a Violation all further bytes are ignored."""
        messages: list[Message] = []
        if self.finished:
            return messages
        if self._buffer:
            data = self._buffer + data
        self.frames = 0
        position, end = 0, len(data)
        while end - position >= 2:
            if self.frames >= self._max_frames:
                return self._finish(messages, Violation(POLICY_VIOLATION, "too many frames at once"))
            first, second = data[position], data[position + 1]
            opcode, fin = first & 0x0F, first & 0x80
            size = second & 0x7F
            payload_at = position + 6  # two bytes of header, four of mask
            if violation := self._check_header(first, second):
                return self._finish(messages, violation)
            if size == 126:
                if end - position < 4:
                    break
                size = data[position + 2] << 8 | data[position + 3]
                payload_at = position + 8
            elif size == 127:
                if end - position < 10:
                    break
                size = int.from_bytes(data[position + 2 : position + 10], "big")
                payload_at = position + 14
                if size >> 63:
                    return self._finish(messages, Violation(PROTOCOL_ERROR, "frame size has its top bit set"))
            if opcode < CLOSE and size + len(self._fragments or b"") > self._max_bytes:
                return self._finish(messages, Violation(TOO_BIG, f"message larger than {self._max_bytes} bytes"))
            if end - payload_at < size:
                break
            payload = unmask(data[payload_at : payload_at + size], data[payload_at - 4 : payload_at])
            position = payload_at + size
            self.frames += CONTROL_WEIGHT if opcode in (PING, PONG) else 1
            message = self._control(opcode, payload) if opcode >= CLOSE else self._data(opcode, fin, payload)
            if message is not None:
                messages.append(message)
                if isinstance(message, (Closed, Violation)):
                    return self._finish(messages)
        self._buffer = data[position:] if position < end else b""
        return messages

    def _finish(self, messages: list[Message], violation: Violation | None = None) -> list[Message]:
        if violation is not None:
            messages.append(violation)
        self.finished = True
        self._buffer = b""
        self._fragments = None
        self._kind = 0
        return messages

    def _check_header(self, first: int, second: int) -> Violation | None:
        """Return what is wrong with a frame by its first two bytes (section 5.2), before the rest has arrived."""
        opcode = first & 0x0F
        if first & 0x70:
            return Violation(PROTOCOL_ERROR, "reserved bits set without an extension")
        if not second & 0x80:
            return Violation(PROTOCOL_ERROR, "client frame without a mask")
        if opcode in (TEXT, BINARY):
            return Violation(PROTOCOL_ERROR, "new message inside a fragmented one") if self._kind else None
        if opcode == CONTINUATION:
            return None if self._kind else Violation(PROTOCOL_ERROR, "continuation of nothing")
        if opcode not in (CLOSE, PING, PONG):
            return Violation(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if not first & 0x80:
            return Violation(PROTOCOL_ERROR, "fragmented control frame")
        if second & 0x7F > MAX_CONTROL_BYTES:
            return Violation(PROTOCOL_ERROR, "control frame larger than 125 bytes")
        return None

    def _data(self, opcode: int, fin: int, payload: bytes) -> Message | None:
        if fin and not self._kind:
            return _complete(opcode, payload)
        if self._fragments is None:
            self._kind, self._fragments = opcode, bytearray()
        self._fragments += payload
        if not fin:
            return None
        kind, payload = self._kind, bytes(self._fragments)
        self._kind, self._fragments = 0, None
        return _complete(kind, payload)

    def _control(self, opcode: int, payload: bytes) -> Message | None:
        if opcode == PING:
            return Ping(payload)
        return parse_close(payload) if opcode == CLOSE else None


def _complete(kind: int, payload: bytes) -> Message:
    if kind == BINARY:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return Violation(INVALID_PAYLOAD, "text that is not UTF-8")
