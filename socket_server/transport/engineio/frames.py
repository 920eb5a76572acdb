"""WebSocket frames (RFC 6455 section 5), server side: bytes in, messages out; no sockets, no clock.

A reader never raises: what it cannot accept ends its output with a Violation, which carries the close code to send.
"""

from dataclasses import dataclass
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

# Close codes, RFC 6455 section 7.4.1; 1012 and 1013 from IANA's WebSocket Close Code Number Registry.
NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
INVALID_PAYLOAD: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

MAX_CONTROL_BYTES: Final = 125  # section 5.5

# A fragment is a part of a message; a ping or a pong stands by itself, as a message does, and counts for so many of them.
CONTROL_WEIGHT: Final = 10


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer wants a PONG with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer closes. code: None where it gave none."""

    code: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol or a limit: close with this code; the reader is finished."""

    code: int
    reason: str


# A text message is a str, a binary one bytes. A PONG says nothing that anyone asked for and is swallowed.
Message = str | bytes | Ping | Closed | Violation


def encode(opcode: int, payload: bytes) -> bytes:
    """Return one unmasked, unfragmented frame (a server never masks, section 5.1)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a CLOSE frame (section 5.5.1); a reason too long for a control frame is cut."""
    text = reason.encode()[: MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return encode(CLOSE, code.to_bytes(2, "big") + text)


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return payload XOR the repeated 4-byte mask (section 5.3), as one big-integer operation, at C speed."""
    size = len(payload)
    if not size:
        return b""
    key = (mask * ((size + 3) // 4))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class FrameReader:
    """Turns the bytes that a client sends into messages, across any cut of the stream.

    max_bytes bounds a message; it is checked on the declared size, before any of the payload is kept. max_frames bounds
    what one call takes apart, about; a ping or a pong counts for CONTROL_WEIGHT. Between messages a reader holds no buffer.
    """

    __slots__ = ("_buffer", "_fragments", "_kind", "_max_bytes", "_max_frames", "finished", "frames")

    def __init__(self, max_bytes: int, max_frames: int = 500) -> None:
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._buffer = b""
        self._kind = 0  # of the fragmented message under way: TEXT or BINARY; 0: none
        self._fragments: bytearray | None = None
        self.finished = False
        self.frames = 0  # that the last feed() took apart, as max_frames counts them

    @property
    def partial(self) -> bool:
        """Whether the stream stands inside a frame or a fragmented message."""
        return bool(self._buffer) or self._kind != 0

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that these bytes complete; after a Closed or a Violation everything is ignored."""
        messages: list[Message] = []
        if self.finished:
            return messages
        if self._buffer:
            data = self._buffer + data
        self.frames = 0
        at, end = 0, len(data)
        while end - at >= 2:
            if self.frames >= self._max_frames:
                return self._finish(messages, Violation(POLICY_VIOLATION, "too many frames at once"))
            first, second = data[at], data[at + 1]
            opcode, fin = first & 0x0F, first & 0x80
            size = second & 0x7F
            payload_at = at + 6  # two bytes of header, four of mask
            if violation := self._check_header(first, second):
                return self._finish(messages, violation)
            if size == 126:
                if end - at < 4:
                    break
                size = data[at + 2] << 8 | data[at + 3]
                payload_at = at + 8
            elif size == 127:
                if end - at < 10:
                    break
                size = int.from_bytes(data[at + 2 : at + 10], "big")
                payload_at = at + 14
                if size >> 63:
                    return self._finish(messages, Violation(PROTOCOL_ERROR, "frame size has its top bit set"))
            if opcode < CLOSE and size + len(self._fragments or b"") > self._max_bytes:
                return self._finish(messages, Violation(TOO_BIG, f"message larger than {self._max_bytes} bytes"))
            if end - payload_at < size:
                break
            payload = unmask(data[payload_at : payload_at + size], data[payload_at - 4 : payload_at])
            at = payload_at + size
            self.frames += CONTROL_WEIGHT if opcode in (PING, PONG) else 1
            message = self._control(opcode, payload) if opcode >= CLOSE else self._data(opcode, fin, payload)
            if message is not None:
                messages.append(message)
                if isinstance(message, (Closed, Violation)):
                    return self._finish(messages)
        self._buffer = data[at:] if at < end else b""
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
        """Judge a frame by its first two bytes (section 5.2), before more of it is waited for."""
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


def parse_close(payload: bytes) -> Closed | Violation:
    """Judge the payload of a CLOSE frame: nothing, or a code that may be sent and a UTF-8 reason (section 7.4)."""
    if not payload:
        return Closed(None)
    if len(payload) == 1:
        return Violation(PROTOCOL_ERROR, "close code of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return Violation(PROTOCOL_ERROR, f"close code {code} may not be sent")
    try:
        return Closed(code, payload[2:].decode())
    except UnicodeDecodeError:
        return Violation(INVALID_PAYLOAD, "close reason that is not UTF-8")
