"""Frames that the server sends, and the content of CLOSE frames."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio.frames import (
    CLOSE,
    INVALID_PAYLOAD,
    PROTOCOL_ERROR,
    TEXT,
    Closed,
    Violation,
    encode,
    encode_close,
    parse_close,
)
from tests.unit.transport.engineio.wire_frames import frame, read, violation

# Closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_code_that_may_be_sent_is_read(code: int) -> None:
    assert read(frame(CLOSE, struct.pack(">H", code))) == [Closed(code)]
    assert read(frame(CLOSE, struct.pack(">H", code) + "תם".encode())) == [Closed(code, "תם")]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_a_close_code_that_may_not_be_sent_is_a_violation(code: int) -> None:
    assert violation(frame(CLOSE, struct.pack(">H", code))) == PROTOCOL_ERROR


def test_a_close_may_have_no_code() -> None:
    assert read(frame(CLOSE)) == [Closed(None)]


def test_a_close_of_one_byte_is_a_violation() -> None:
    assert violation(frame(CLOSE, b"\x03")) == PROTOCOL_ERROR


def test_a_close_reason_that_is_not_utf_8_is_a_violation() -> None:
    assert violation(frame(CLOSE, struct.pack(">H", 1000) + b"\xff")) == INVALID_PAYLOAD


def test_a_close_reason_of_123_bytes_is_read() -> None:
    assert read(frame(CLOSE, struct.pack(">H", 1000) + b"x" * 123)) == [Closed(1000, "x" * 123)]


@given(st.binary(max_size=125))
def test_any_close_payload_is_decoded_or_a_violation(payload: bytes) -> None:
    assert isinstance(parse_close(payload), (Closed, Violation))


# Encoding


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8100"),
        (5, "8105"),
        (125, "817d"),
        (126, "817e007e"),
        (256, "817e0100"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_a_servers_frame_has_the_shortest_header_and_no_mask(size: int, header: str) -> None:
    assert encode(TEXT, b"x" * size) == bytes.fromhex(header) + b"x" * size


@pytest.mark.parametrize("reason", ["", "bye", "x" * 123, "x" * 124, "x" * 1_000, "ש" * 100, "😀" * 60, "x" + "😀" * 60])
def test_a_close_fits_a_control_frame_and_is_cut_between_characters(reason: str) -> None:
    encoded = encode_close(1012, reason)
    size = encoded[1]
    assert encoded[0] == 0x88
    assert size <= 125
    assert len(encoded) == 2 + size
    assert encoded[2:4] == struct.pack(">H", 1012)
    kept = encoded[4:].decode()
    assert reason.startswith(kept)
    assert kept == reason or size > 121
