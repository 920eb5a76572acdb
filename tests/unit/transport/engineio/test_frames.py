"""WebSocket frames: RFC 6455 to the letter, limits before payloads, and nothing that breaks the reader."""

import random
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol

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
    FrameReader,
    Ping,
    Violation,
    encode,
    encode_close,
    parse_close,
    unmask,
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
def test_every_mask_is_taken_off(mask: bytes) -> None:
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
    + frame(PONG, b"nobody asked")
    + frame(BINARY, b"")
    + frame(CLOSE, struct.pack(">H", 1000) + b"bye")
)
MESSAGES = ["héllo", Ping(b"mid"), "fragmented", bytes(130), b"", Closed(1000, "bye")]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_cut_anywhere_is_the_same_messages(cut: int) -> None:
    assert read(STREAM[:cut], STREAM[cut:]) == MESSAGES


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
def test_a_stream_in_small_pieces_is_the_same_messages(step: int) -> None:
    assert read(*(STREAM[at : at + step] for at in range(0, len(STREAM), step))) == MESSAGES


def test_messages_come_out_as_soon_as_they_are_complete() -> None:
    reader = FrameReader(LIMIT)
    assert [reader.feed(bytes([byte])) for byte in HELLO] == [[]] * (len(HELLO) - 1) + [["Hello"]]


def test_nothing_in_is_nothing_out() -> None:
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
def test_a_frame_or_message_under_way_is_partial(begun: bytes) -> None:
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
def test_a_control_frame_of_125_bytes_is_fine(opcode: int) -> None:
    assert read(frame(opcode, b"x" * 125), HELLO) == ([Ping(b"x" * 125)] if opcode == PING else []) + ["Hello"]


def test_a_violation_is_seen_at_the_second_byte() -> None:
    for bad in (frame(TEXT, rsv=1), frame(3), frame(TEXT, mask=None), frame(PING, fin=False), frame(CONTINUATION)):
        assert violation(bad[:1], bad[1:2]) == PROTOCOL_ERROR


def test_after_a_violation_everything_is_ignored() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(HELLO + frame(3) + HELLO)[0] == "Hello"
    assert reader.finished
    assert reader.feed(HELLO) == []
    assert not reader.partial
    assert buffered(reader) == 0


def test_after_a_close_everything_is_ignored() -> None:
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


def test_fragments_count_together_at_the_header_of_the_one_that_is_too_much() -> None:
    reader = FrameReader(1_000)
    assert reader.feed(frame(TEXT, b"x" * 600, fin=False)) == []
    assert reader.feed(frame(CONTINUATION, b"x" * 400, fin=False)) == []
    (found,) = reader.feed(frame(CONTINUATION, b"x")[:2])
    assert isinstance(found, Violation)
    assert found.code == TOO_BIG
    assert buffered(reader) == 0


def test_a_new_message_starts_from_zero() -> None:
    whole = frame(TEXT, b"x" * 500, fin=False) + frame(CONTINUATION, b"x" * 500)
    assert read(whole, whole, frame(TEXT, b"y" * 1_000), limit=1_000) == ["x" * 1_000, "x" * 1_000, "y" * 1_000]


def test_control_frames_do_not_count_for_the_message() -> None:
    data = frame(TEXT, b"x" * 1_000, fin=False), frame(PING, b"y" * 125), frame(CONTINUATION)
    assert read(*data, limit=1_000) == [Ping(b"y" * 125), "x" * 1_000]


def test_a_long_size_for_a_short_message_counts_by_its_value() -> None:
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
def test_a_control_frame_counts_as_much_as_ten_fragments(opcode: int) -> None:
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
def test_text_that_is_not_utf_8_is_a_violation_however_it_is_cut(bad: bytes) -> None:
    assert violation(frame(TEXT, bad)) == INVALID_PAYLOAD
    for cut in range(len(bad) + 1):
        assert violation(frame(TEXT, bad[:cut], fin=False), frame(CONTINUATION, bad[cut:])) == INVALID_PAYLOAD
    assert read(frame(BINARY, bad)) == [bad]


@pytest.mark.parametrize("text", ["é", "€", "😀", "שלום", "\x00", "\ufeff", "\U0010ffff", "a😀b"])
def test_characters_cut_between_fragments_are_put_together(text: str) -> None:
    encoded = text.encode()
    for cut in range(len(encoded) + 1):
        assert read(frame(TEXT, encoded[:cut], fin=False), frame(CONTINUATION, encoded[cut:])) == [text]


# Closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_code_that_may_be_sent_is_taken(code: int) -> None:
    assert read(frame(CLOSE, struct.pack(">H", code))) == [Closed(code)]
    assert read(frame(CLOSE, struct.pack(">H", code) + "תם".encode())) == [Closed(code, "תם")]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_a_close_code_that_may_not_be_sent_is_a_violation(code: int) -> None:
    assert violation(frame(CLOSE, struct.pack(">H", code))) == PROTOCOL_ERROR


def test_a_close_may_be_without_code() -> None:
    assert read(frame(CLOSE)) == [Closed(None)]


def test_a_close_of_one_byte_is_a_violation() -> None:
    assert violation(frame(CLOSE, b"\x03")) == PROTOCOL_ERROR


def test_a_close_reason_that_is_not_utf_8_is_a_violation() -> None:
    assert violation(frame(CLOSE, struct.pack(">H", 1000) + b"\xff")) == INVALID_PAYLOAD


def test_a_close_reason_of_123_bytes_is_taken() -> None:
    assert read(frame(CLOSE, struct.pack(">H", 1000) + b"x" * 123)) == [Closed(1000, "x" * 123)]


@given(st.binary(max_size=125))
def test_any_close_payload_is_judged(payload: bytes) -> None:
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


# Against an independent implementation


def client() -> FrameProtocol:
    return FrameProtocol(client=True, extensions=[])


operations = st.one_of(
    st.tuples(
        st.just("text"), st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), min_size=1, max_size=4)
    ),
    st.tuples(st.just("binary"), st.lists(st.binary(max_size=200), min_size=1, max_size=4)),
    st.tuples(st.just("ping"), st.binary(max_size=125)),
    st.tuples(st.just("pong"), st.binary(max_size=125)),
)


def pieces(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    cut: list[bytes] = []
    for size in sizes:
        cut.append(data[:size])
        data = data[size:]
    return [*cut, data]


@given(
    st.lists(operations, max_size=8),
    st.sampled_from([None, (1000, "bye"), (1001, ""), (4000, "ש")]),
    st.lists(st.integers(0, 60), max_size=30),
)
def test_what_an_independent_client_sends_is_read(
    steps: list[tuple[str, Any]], closing: tuple[int, str] | None, sizes: list[int]
) -> None:
    sender, data, expected = client(), b"", []
    for kind, content in steps:
        match kind:
            case "text" | "binary":
                for index, part in enumerate(content):
                    last = index == len(content) - 1
                    data += sender.send_data(part, fin=last)
                    if index == 0 and not last:
                        data += sender.ping(b"between")
                        expected.append(Ping(b"between"))
                expected.append(("" if kind == "text" else b"").join(content))
            case "ping":
                data += sender.ping(content)
                expected.append(Ping(content))
            case _:
                data += sender.pong(content)
    if closing is not None:
        data += sender.close(*closing)
        expected.append(Closed(*closing))
    assert read(*pieces(data, sizes)) == expected


@given(
    st.lists(
        st.tuples(st.just(TEXT), st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
        | st.tuples(st.just(BINARY), st.binary(max_size=300))
        | st.tuples(st.just(PONG), st.binary(max_size=125)),
        max_size=6,
    ),
    st.sampled_from([0, 125, 126, 65_535, 65_536]),
)
def test_what_is_sent_is_read_by_an_independent_client(contents: list[tuple[int, Any]], padding: int) -> None:
    contents = [*contents, (BINARY, bytes(padding))]
    receiver = client()
    for opcode, content in contents:
        receiver.receive_bytes(encode(opcode, content.encode() if isinstance(content, str) else content))
    receiver.receive_bytes(encode_close(1012, "restart"))
    received: list[tuple[int, Any]] = []
    partial: Any = None
    for found in receiver.received_frames():
        opcode, payload = int(found.opcode), found.payload
        if opcode in (TEXT, BINARY):  # delivered in parts where it is large
            partial = payload if partial is None else partial + payload
            if found.message_finished:
                received.append((opcode, str(partial) if opcode == TEXT else bytes(partial)))
                partial = None
        else:
            received.append((opcode, payload if opcode == CLOSE else bytes(payload)))
    assert received == [*contents, (CLOSE, (CloseReason.SERVICE_RESTART, "restart"))]


# Fuzz


def _valid(rng: random.Random) -> bytes:
    """Return a short stream of valid frames."""
    parts = []
    for _ in range(rng.randrange(1, 4)):
        opcode = rng.choice((TEXT, BINARY, PING, PONG, CLOSE, CONTINUATION))
        payload = rng.randbytes(rng.randrange(0, 12)) if rng.random() < 0.5 else b"text"[: rng.randrange(5)]
        head = bytes((rng.choice((0x80, 0x80, 0)) | opcode, 0x80 | len(payload)))
        parts.append(head + MASK + unmask(payload, MASK))
    return b"".join(parts)


def _mutated(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
        case 1:
            return data[:at] + rng.randbytes(rng.randrange(1, 6)) + data[at:]
        case 2:
            return data[:at] + data[at + rng.randrange(1, 4) :]
        case _:
            return (
                data[:at]
                + bytes(
                    (rng.choice((0x80 | 126, 0x80 | 127, 0xFF, 0))),
                )
                + data[at + 1 :]
            )


def test_a_hundred_thousand_random_and_mutated_streams_break_nothing() -> None:
    rng = random.Random(6455)
    limit = 64
    kinds: set[type] = set()
    codes: set[int] = set()
    for number in range(100_000):
        if number % 4 == 0:
            data = rng.randbytes(rng.randrange(1, 48))
        else:
            data = _valid(rng)
            if number % 4 != 1:
                data = _mutated(rng, data)
        cut = rng.randrange(len(data) + 1)
        reader = FrameReader(limit)
        for piece in (data[:cut], data[cut:]):
            messages = reader.feed(piece)
            assert len(reader._buffer) + len(reader._fragments or b"") <= limit + SLACK
            for message in messages:
                kind = type(message)
                kinds.add(kind)
                if kind is Violation:
                    codes.add(message.code)
                    assert message is messages[-1]
                    assert reader.finished
                elif kind is str or kind is bytes:
                    assert len(message) <= limit
    assert kinds == {str, bytes, Ping, Closed, Violation}
    assert codes == {PROTOCOL_ERROR, INVALID_PAYLOAD, TOO_BIG}


@given(st.binary(max_size=200), st.lists(st.integers(0, 20), max_size=20))
def test_any_stream_is_the_same_messages_however_it_is_cut(data: bytes, sizes: list[int]) -> None:
    assert read(*pieces(data, sizes)) == read(data)
