"""Frames against an independent implementation (wsproto), and random streams."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol

from socket_server.transport.engineio.frame_reader import FrameReader
from socket_server.transport.engineio.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_PAYLOAD,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Closed,
    Ping,
    Violation,
    encode,
    encode_close,
    unmask,
)
from tests.unit.transport.engineio.wire_frames import MASK, SLACK, pieces, read

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
        if opcode in (TEXT, BINARY):  # a large one is delivered in parts
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


def test_100_000_random_and_mutated_streams_raise_nothing_and_hold_little() -> None:
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
def test_any_stream_is_the_same_messages_in_any_pieces(data: bytes, sizes: list[int]) -> None:
    assert read(*pieces(data, sizes)) == read(data)
