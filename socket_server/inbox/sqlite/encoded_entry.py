"""Entries whose users are encoded once, in the worker, and written to the file as they are. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from socket_server.inbox.inbox import Claim, Entry

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True, slots=True)
class EncodedEntry:
    """An Entry. count: the number of its users; users: a MessagePack array."""

    count: int
    users: bytes
    notification: bytes
    ttl_s: float | None
    claim: Claim | None


def encode(entry: Entry) -> EncodedEntry:
    """Return the entry with its users encoded."""
    return EncodedEntry(len(entry.user_ids), encode_users(entry.user_ids), entry.notification, entry.ttl_s, entry.claim)


def encode_users(user_ids: Sequence[str]) -> bytes:
    """Return user ids as a MessagePack array."""
    return _encode(user_ids)


def decode_users(users: bytes) -> tuple[str, ...]:
    """Return the user ids in a MessagePack array. Raises ValueError (msgspec.DecodeError) if it is none."""
    return _decode(users)
