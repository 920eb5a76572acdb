"""The messages between a worker and its storage process.

A message is its length (4 bytes, big-endian) and a MessagePack body: a request or a reply.
"""

import socket
import struct
from typing import Any

import msgspec

from socket_server.inbox.inbox import Appended, Page, Read
from socket_server.inbox.sqlite.encoded_entry import EncodedEntry


class Open(msgspec.Struct, tag=True, frozen=True):
    """Reply: Done, with the head."""


class Append(msgspec.Struct, tag=True, frozen=True):
    """Reply: HasAppended."""

    entries: tuple[EncodedEntry, ...]
    after: int | None


class Amend(msgspec.Struct, tag=True, frozen=True):
    """Reply: Done."""

    key: str
    answer: bytes


class Since(msgspec.Struct, tag=True, frozen=True):
    """Reply: Pages. Many reads in one message: after a restart all clients recover, and a message each would cost more than
    reading."""

    reads: tuple[Read, ...]


class Forget(msgspec.Struct, tag=True, frozen=True):
    """Reply: Done, with the number of notifications."""

    user_id: str


class Check(msgspec.Struct, tag=True, frozen=True):
    """Reply: Done."""


class Done(msgspec.Struct, tag=True, frozen=True):
    """Success. number: see the request."""

    number: int = 0


class Failed(msgspec.Struct, tag=True, frozen=True):
    """InboxUnavailable. reason: its text."""

    reason: str


Request = Open | Append | Amend | Since | Forget | Check


class HasAppended(msgspec.Struct, tag=True, frozen=True):
    """The reply to Append."""

    appended: Appended


class Pages(msgspec.Struct, tag=True, frozen=True):
    """The reply to Since, in its order. If reading took long these are the first ones; ask again for the rest."""

    pages: tuple[Page, ...]


Reply = Done | Failed | HasAppended | Pages

LENGTH = struct.Struct("!I")
RECEIVE_BYTES = 65_536

_encoder = msgspec.msgpack.Encoder()
_requests: "msgspec.msgpack.Decoder[Request]" = msgspec.msgpack.Decoder(Request)
_replies: "msgspec.msgpack.Decoder[Reply]" = msgspec.msgpack.Decoder(Reply)


def encode(message: Any) -> bytes:
    """Return the bytes of a request or reply."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_request(body: bytes) -> Request:
    """Return the request in a message's body. Raises ValueError (msgspec.ValidationError) if it is none."""
    return _requests.decode(body)


def decode_reply(body: bytes) -> Reply:
    """Return the reply in a message's body. Raises ValueError (msgspec.ValidationError) if it is none."""
    return _replies.decode(body)


def receive(channel: socket.socket) -> bytes | None:
    """Wait for a message on a blocking socket; return its body, or None if the other side has closed. Raises OSError."""
    data = channel.recv(RECEIVE_BYTES)
    while data:
        if len(data) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(data)[0]
            if len(data) >= end:  # a channel carries one message at a time
                return data[LENGTH.size :]
            parts, missing = [data], end - len(data)
            while missing and (more := channel.recv(min(missing, 1 << 20))):
                parts.append(more)
                missing -= len(more)
            return None if missing else b"".join(parts)[LENGTH.size :]
        if not (more := channel.recv(RECEIVE_BYTES)):
            return None
        data += more
    return None
