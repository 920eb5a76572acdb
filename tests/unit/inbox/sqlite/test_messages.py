"""What a server and its storage process say to each other comes across whole, and nothing else is taken for it."""

import socket
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.inbox.inbox import Appended, Claim, Entry, Page, Read, Record, Repeat, Stored
from socket_server.inbox.sqlite import messages
from socket_server.inbox.sqlite.encoded_entry import encode

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
blob = st.binary(max_size=20)
offset = st.integers(0, 2**63 - 1)
ttl = st.none() | st.floats(0, 2**53) | st.just(0)
claims = st.none() | st.builds(Claim, text, blob, blob)
entries = st.builds(Entry, st.lists(text, max_size=4).map(tuple), blob, ttl, claims).map(encode)
reads = st.builds(Read, text, st.integers(0, 10**19 - 1), st.none() | offset, offset, offset)
requests = st.one_of(
    st.just(messages.Open()),
    st.builds(messages.Append, st.lists(entries, max_size=4).map(tuple), st.none() | offset),
    st.builds(messages.Amend, text, blob),
    st.builds(messages.Since, st.lists(reads, max_size=4).map(tuple)),
    st.builds(messages.Forget, text),
    st.just(messages.Check()),
)
records = st.builds(Record, offset, st.lists(text, max_size=4).map(tuple), blob)
stored = st.builds(Stored, offset, blob)
pages = st.builds(Page, st.lists(stored, max_size=4).map(tuple), offset, st.booleans())
outcomes = offset | st.builds(Repeat, offset, blob, blob)
replies = st.one_of(
    st.builds(messages.Done, offset),
    st.builds(messages.Failed, text),
    st.builds(
        messages.HasAppended,
        st.builds(Appended, st.lists(outcomes, max_size=4).map(tuple), st.lists(records, max_size=3).map(tuple)),
    ),
    st.builds(messages.Pages, st.lists(pages, max_size=3).map(tuple)),
)


def body(encoded: bytes) -> bytes:
    assert messages.LENGTH.unpack_from(encoded) == (len(encoded) - messages.LENGTH.size,)
    return encoded[messages.LENGTH.size :]


@given(requests)
@example(messages.Append((encode(Entry(("משתמש",), b"\x00\xff" * 100_000)),), None))
def test_a_request_is_read_as_it_was_made(request: Any) -> None:
    assert messages.decode_request(body(messages.encode(request))) == request


@given(replies)
def test_a_reply_is_read_as_it_was_made(reply: Any) -> None:
    assert messages.decode_reply(body(messages.encode(reply))) == reply


@given(requests, replies)
def test_a_request_is_no_reply_and_a_reply_is_no_request(request: Any, reply: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        messages.decode_reply(body(messages.encode(request)))
    with pytest.raises(ValueError, match=r".+"):
        messages.decode_request(body(messages.encode(reply)))


def judge(data: bytes) -> None:
    for decode in (messages.decode_request, messages.decode_reply):
        try:
            decode(data)
        except ValueError:
            pass


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | blob,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(text, children, max_size=4),
    max_leaves=8,
)


@given(st.binary() | anything.map(msgspec.msgpack.encode))
@example(b"")
@example(b"\x81\xa4type\xa6Append")
@example(b"\x91" * 100_000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x82\xa4type\xa6Forget\xa7user_id\xa2\xc3\x28")
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    judge(data)


@given(requests | replies, st.integers(0, 200), st.integers(0, 3), blob)
def test_any_damage_to_a_message_leaves_one_or_is_a_value_error(message: Any, at: int, cut: int, put: bytes) -> None:
    data = body(messages.encode(message))
    judge(data[:at] + put + data[at + cut :])


# On a socket


MESSAGE = messages.encode(messages.Amend("key", b"answer"))


def received(*parts: bytes) -> list[bytes | None]:
    """Return what a reader receives, up to the end, if these parts are sent one after the other."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    found: list[bytes | None] = []

    def receive() -> None:
        while not found or found[-1] is not None:
            found.append(messages.receive(ours))

    # A daemon: one that never comes back must not keep the test run alive.
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        for part in parts:
            theirs.sendall(part)
        theirs.shutdown(socket.SHUT_WR)
        thread.join(5)
        assert not thread.is_alive(), "it still waits for a closed peer"
    finally:
        ours.close()
        theirs.close()
    return found


@pytest.mark.parametrize("cut", range(1, len(MESSAGE)))
def test_a_message_that_comes_in_two_parts_is_one(cut: int) -> None:
    found = received(MESSAGE[:cut], MESSAGE[cut:])
    assert found == [body(MESSAGE), None]


def test_a_message_that_comes_byte_by_byte_is_one() -> None:
    assert received(*(bytes([byte]) for byte in MESSAGE)) == [body(MESSAGE), None]


@pytest.mark.parametrize("size", [0, 1, messages.RECEIVE_BYTES - 4, messages.RECEIVE_BYTES, 5_000_000])
def test_a_message_of_any_size_is_received(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    assert received(messages.LENGTH.pack(size) + data) == [data, None]


@pytest.mark.parametrize("cut", range(len(MESSAGE)))
def test_who_goes_in_the_middle_of_a_message_has_gone(cut: int) -> None:
    assert received(MESSAGE[:cut]) == [None]


def test_who_goes_in_the_middle_of_a_large_message_has_gone() -> None:
    assert received(messages.LENGTH.pack(5_000_000) + bytes(3_000_000)) == [None]
