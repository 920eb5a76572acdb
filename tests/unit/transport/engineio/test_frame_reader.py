"""The frame reader: RFC 6455, and limits that are checked before the payload."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio.frame_reader import FrameReader
from socket_server.transport.engineio.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_PAYLOAD,
    PING,
    POLICY_VIOLATION,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Closed,
    Ping,
    Violation,
    unmask,
)
from tests.unit.transport.engineio.wire_frames import HELLO, LIMIT, MASK, SLACK, buffered, frame, read, violation

# Whole frames


def test_the_example_of_the_rfc_is_read() -> None:
    assert read(HELLO) == ["Hello"]


def test_several_frames_in_one_read_are_several_messages() -> None:
    data = HELLO + frame(BINARY, b"\x00\xff") + frame(PING, b"?") + HELLO
    assert read(data) == ["Hello", b"\x00\xff", Ping(b"?"), "Hello"]


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537, 200_000]
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_every_size_class_are_read(size: int, opcode: int) -> None:
    payload = bytes(97 + index % 26 for index in range(size))
    expected = payload.decode() if opcode == TEXT else payload
    data = frame(opcode, payload)
    assert read(data, limit=200_000) == [expected]
    middle = len(data) // 2
    assert read(data[:middle], data[middle:], limit=200_000) == [expected]


@pytest.mark.parametrize("mask", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00", MASK])
def test_every_mask_is_removed(mask: bytes) -> None:
    assert read(frame(TEXT, "שלום, world".encode(), mask=mask)) == ["שלום, world"]


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmasking_is_xor_and_its_own_inverse(payload: bytes, mask: bytes) -> None:
    masked = unmask(payload, mask)
    assert masked == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    assert unmask(masked, mask) == payload


STREAM = (
    frame(TEXT, "héllo".encode())
    + frame(TEXT, b"frag", fin=False)
    + frame(PING, b"mid")
    + frame(CONTINUATION, b"ment", fin=False)
    + frame(CONTINUATION, b"ed")
    + frame(BINARY, bytes(130))
    + frame(PONG, b"not asked for")
    + frame(BINARY, b"")
    + frame(CLOSE, struct.pack(">H", 1000) + b"bye")
)
MESSAGES = ["héllo", Ping(b"mid"), "fragmented", bytes(130), b"", Closed(1000, "bye")]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_in_two_pieces_is_the_same_messages(cut: int) -> None:
    assert read(STREAM[:cut], STREAM[cut:]) == MESSAGES


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
def test_a_stream_in_small_pieces_is_the_same_messages(step: int) -> None:
    assert read(*(STREAM[at : at + step] for at in range(0, len(STREAM), step))) == MESSAGES


def test_messages_come_out_as_soon_as_they_are_complete() -> None:
    reader = FrameReader(LIMIT)
    assert [reader.feed(bytes([byte])) for byte in HELLO] == [[]] * (len(HELLO) - 1) + [["Hello"]]


def test_no_bytes_are_no_messages() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(b"") == []
    reader.feed(HELLO[:3])
    assert reader.feed(b"") == []
    assert reader.feed(HELLO[3:]) == ["Hello"]


def test_between_messages_a_reader_holds_nothing() -> None:
    reader = FrameReader(LIMIT)
    assert not reader.partial
    for data in (HELLO, frame(BINARY, bytes(1_000)), frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")):
        reader.feed(data)
        assert not reader.partial
        assert buffered(reader) == 0
        assert reader._fragments is None


@pytest.mark.parametrize("begun", [HELLO[:1], HELLO[:-1], frame(TEXT, b"a", fin=False), frame(TEXT, b"", fin=False)])
def test_a_frame_or_a_message_that_has_begun_is_partial(begun: bytes) -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(begun) == []
    assert reader.partial


# Fragments


def test_control_frames_may_come_between_fragments() -> None:
    data = (
        frame(TEXT, b"a", fin=False),
        frame(PING, b"1"),
        frame(PONG),
        frame(CONTINUATION, b"b", fin=False),
        frame(PING, b"2"),
        frame(CONTINUATION, b"c"),
    )
    assert read(*data) == [Ping(b"1"), Ping(b"2"), "abc"]


def test_a_close_between_fragments_closes() -> None:
    assert read(frame(TEXT, b"a", fin=False), frame(CLOSE), frame(CONTINUATION, b"b")) == [Closed(None)]


def test_fragments_may_be_empty() -> None:
    data = (
        frame(BINARY, fin=False),
        frame(CONTINUATION, fin=False),
        frame(CONTINUATION, b"x", fin=False),
        frame(CONTINUATION),
    )
    assert read(*data) == [b"x"]
    assert read(frame(TEXT, fin=False), frame(CONTINUATION)) == [""]


def test_any_number_of_empty_fragments_costs_no_memory() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(frame(TEXT, fin=False))
    for _ in range(1_000):
        assert reader.feed(frame(CONTINUATION, fin=False)) == []
    assert buffered(reader) == 0


def test_a_new_message_inside_a_fragmented_one_is_a_violation() -> None:
    for opcode in (TEXT, BINARY):
        for fin in (True, False):
            assert violation(frame(TEXT, b"a", fin=False), frame(opcode, b"b", fin=fin)) == PROTOCOL_ERROR
            assert violation(frame(TEXT, b"", fin=False), frame(opcode, b"", fin=fin)) == PROTOCOL_ERROR


@pytest.mark.parametrize("before", [b"", HELLO, frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"), frame(PING)])
@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_of_nothing_is_a_violation(before: bytes, fin: bool) -> None:
    assert violation(before + frame(CONTINUATION, b"x", fin=fin)) == PROTOCOL_ERROR


# Headers


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits_without_an_extension_are_a_violation(rsv: int, opcode: int) -> None:
    assert violation(frame(opcode, b"", rsv=rsv)) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_an_unknown_opcode_is_a_violation(opcode: int) -> None:
    assert violation(frame(opcode, b"x")) == PROTOCOL_ERROR
    assert violation(frame(TEXT, b"a", fin=False), frame(opcode, b"x")) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("payload", [b"", b"x" * 10])
def test_a_client_frame_without_a_mask_is_a_violation(opcode: int, payload: bytes) -> None:
    assert violation(frame(opcode, payload, mask=None)) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_a_violation(opcode: int) -> None:
    assert violation(frame(opcode, b"", fin=False)) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 127, 65_536])
def test_a_long_control_frame_is_a_violation_at_its_header(opcode: int, size: int) -> None:
    assert violation(frame(opcode, declared=size)[:2]) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_a_control_frame_of_125_bytes_is_read(opcode: int) -> None:
    assert read(frame(opcode, b"x" * 125), HELLO) == ([Ping(b"x" * 125)] if opcode == PING else []) + ["Hello"]


def test_a_violation_is_seen_at_the_second_byte() -> None:
    for bad in (frame(TEXT, rsv=1), frame(3), frame(TEXT, mask=None), frame(PING, fin=False), frame(CONTINUATION)):
        assert violation(bad[:1], bad[1:2]) == PROTOCOL_ERROR


def test_all_bytes_after_a_violation_are_ignored() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(HELLO + frame(3) + HELLO)[0] == "Hello"
    assert reader.finished
    assert reader.feed(HELLO) == []
    assert not reader.partial
    assert buffered(reader) == 0


def test_all_bytes_after_a_close_are_ignored() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(frame(CLOSE) + HELLO) == [Closed(None)]
    assert reader.finished
    assert reader.feed(HELLO) == []


# Limits


@pytest.mark.parametrize("limit", [0, 1, 125, 126, 1_024, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_limit_is_the_largest_message(limit: int, opcode: int) -> None:
    (fits,) = read(frame(opcode, b"x" * limit), limit=limit)
    assert len(fits) == limit
    assert violation(frame(opcode, b"x" * (limit + 1)), limit=limit) == TOO_BIG


@pytest.mark.parametrize(
    ("declared", "width"), [(1_025, 2), (65_535, 2), (65_536, 8), (200_000_000, 8), (2**32, 8), (2**62, 8), (2**63 - 1, 8)]
)
def test_a_size_above_the_limit_is_refused_at_the_header_before_any_payload(declared: int, width: int) -> None:
    header = frame(BINARY, declared=declared, width=width)[: 2 + width]
    for cut in range(1, len(header)):
        reader = FrameReader(1_024)
        assert reader.feed(header[:cut]) == []
        (found,) = reader.feed(header[cut:])
        assert isinstance(found, Violation)
        assert found.code == TOO_BIG
        assert buffered(reader) == 0


@pytest.mark.parametrize("declared", [2**63, 2**64 - 1])
def test_a_size_with_its_top_bit_set_is_a_violation(declared: int) -> None:
    assert violation(frame(BINARY, declared=declared, width=8)[:10]) == PROTOCOL_ERROR


def test_the_limit_is_of_all_fragments_together_and_checked_at_the_header() -> None:
    reader = FrameReader(1_000)
    assert reader.feed(frame(TEXT, b"x" * 600, fin=False)) == []
    assert reader.feed(frame(CONTINUATION, b"x" * 400, fin=False)) == []
    (found,) = reader.feed(frame(CONTINUATION, b"x")[:2])
    assert isinstance(found, Violation)
    assert found.code == TOO_BIG
    assert buffered(reader) == 0


def test_each_message_has_the_whole_limit() -> None:
    whole = frame(TEXT, b"x" * 500, fin=False) + frame(CONTINUATION, b"x" * 500)
    assert read(whole, whole, frame(TEXT, b"y" * 1_000), limit=1_000) == ["x" * 1_000, "x" * 1_000, "y" * 1_000]


def test_control_frames_do_not_count_towards_a_message() -> None:
    data = frame(TEXT, b"x" * 1_000, fin=False), frame(PING, b"y" * 125), frame(CONTINUATION)
    assert read(*data, limit=1_000) == [Ping(b"y" * 125), "x" * 1_000]


def test_a_short_message_may_declare_its_size_in_the_long_form() -> None:
    # Not the shortest form (section 5.2 wants that of the sender): accepted or refused, but never misread.
    for width in (2, 8):
        found = read(frame(TEXT, b"Hello", width=width))
        assert found == ["Hello"] or (isinstance(found[0], Violation) and found[0].code == PROTOCOL_ERROR)


def test_a_client_that_sends_byte_by_byte_keeps_the_reader_within_the_limit() -> None:
    reader = FrameReader(1_000)
    for byte in frame(BINARY, bytes(600), fin=False) + frame(PING, bytes(125)) + frame(CONTINUATION, bytes(400)):
        reader.feed(bytes([byte]))
        assert buffered(reader) <= 1_000 + SLACK


def test_too_many_frames_at_once_are_a_violation_and_the_count_is_of_one_read() -> None:
    reader = FrameReader(LIMIT, max_frames=10)
    for _ in range(5):
        assert len(reader.feed(frame(TEXT, b"x") * 10)) == 10
        assert reader.frames == 10
    assert reader.feed(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3) == []
    assert reader.frames == 4
    *before, last = reader.feed(frame(CONTINUATION, fin=False) * 11)
    assert before == []
    assert isinstance(last, Violation)
    assert last.code == POLICY_VIOLATION


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_a_ping_or_pong_counts_as_ten_frames(opcode: int) -> None:
    reader = FrameReader(LIMIT, max_frames=100)
    reader.feed(frame(opcode) * 10)
    assert reader.frames == 100
    assert not reader.finished
    *_, last = reader.feed(frame(opcode) * 11)
    assert isinstance(last, Violation)
    assert last.code == POLICY_VIOLATION


# UTF-8


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\x80",
        b"\xc0\xaf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"ok \xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ],
)
def test_text_that_is_not_utf_8_is_a_violation_in_any_pieces(bad: bytes) -> None:
    assert violation(frame(TEXT, bad)) == INVALID_PAYLOAD
    for cut in range(len(bad) + 1):
        assert violation(frame(TEXT, bad[:cut], fin=False), frame(CONTINUATION, bad[cut:])) == INVALID_PAYLOAD
    assert read(frame(BINARY, bad)) == [bad]


@pytest.mark.parametrize("text", ["é", "€", "😀", "שלום", "\x00", "\ufeff", "\U0010ffff", "a😀b"])
def test_characters_may_be_split_between_fragments(text: str) -> None:
    encoded = text.encode()
    for cut in range(len(encoded) + 1):
        assert read(frame(TEXT, encoded[:cut], fin=False), frame(CONTINUATION, encoded[cut:])) == [text]
