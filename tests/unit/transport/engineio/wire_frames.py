"""Frames as a client sends them, and a reader to feed them to."""

import struct
from collections.abc import Iterable
from typing import Any

from socket_server.transport.engineio.frame_reader import FrameReader
from socket_server.transport.engineio.frames import (
    Closed,
    Violation,
)

MASK = b"\x37\xfa\x21\x3d"  # of the RFC's own example
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # section 5.7: a single-frame masked text message "Hello"
LIMIT = 65_536
# A header of 14 bytes at most, or a whole control frame of 6 + 125.
SLACK = 131


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes | None = MASK,
    rsv: int = 0,
    declared: int | None = None,
    width: int | None = None,
) -> bytes:
    """Return a client's frame. declared: a size other than the payload's; width: bytes of the size, 0, 2 or 8."""
    size = len(payload) if declared is None else declared
    if width is None:
        width = 0 if size < 126 else 2 if size < 65_536 else 8
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask is not None else 0
    if width == 0:
        head += bytes([masked | size])
    elif width == 2:
        head += bytes([masked | 126]) + struct.pack(">H", size)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def read(*data: bytes, limit: int = LIMIT) -> list[Any]:
    """Feed the data, piece by piece, and return what comes out."""
    reader = FrameReader(limit)
    return [message for piece in data for message in reader.feed(piece)]


def violation(*data: bytes, limit: int = LIMIT) -> int:
    """Return the close code of the violation that these bytes, and only their last one, are."""
    *before, last = read(*data, limit=limit)
    assert not any(isinstance(message, (Violation, Closed)) for message in before)
    assert isinstance(last, Violation), last
    assert last.reason
    return last.code


def buffered(reader: FrameReader) -> int:
    return len(reader._buffer) + len(reader._fragments or b"")


def pieces(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Return the data in pieces of these sizes, and the rest."""
    cut: list[bytes] = []
    for size in sizes:
        cut.append(data[:size])
        data = data[size:]
    return [*cut, data]
