"""WebSocket frames (RFC 6455 section 5), server side: opcodes, close codes, encoding. Pure functions."""

from dataclasses import dataclass
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

# Close codes: RFC 6455 section 7.4.1; 1012 and 1013 from IANA's WebSocket Close Code Number Registry.
NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
INVALID_PAYLOAD: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

MAX_CONTROL_BYTES: Final = 125  # section 5.5


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer expects a PONG with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer closes. code: None if it gave none."""

    code: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol or exceeded a limit. code: the close code to send."""

    code: int
    reason: str


# What a reader returns: a text message as str, a binary one as bytes. PONGs are dropped.
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
    """Return a CLOSE frame (section 5.5.1); a reason that is too long for a control frame is cut."""
    text = reason.encode()[: MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return encode(CLOSE, code.to_bytes(2, "big") + text)


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return payload XOR the repeated 4-byte mask (section 5.3), as one operation on big integers, which runs in C."""
    size = len(payload)
    if not size:
        return b""
    key = (mask * ((size + 3) // 4))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def parse_close(payload: bytes) -> Closed | Violation:
    """Return the content of a CLOSE frame: nothing, or a code that may be sent and a UTF-8 reason (section 7.4)."""
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
