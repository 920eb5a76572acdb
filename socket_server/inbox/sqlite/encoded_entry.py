"""An entry as it goes to the file: its users are packed once, by who has them at hand, and written as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from socket_server.inbox.inbox import Claim, Entry

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True, slots=True)
class EncodedEntry:
    """An Entry. count: of its users; users: a MessagePack array."""

    count: int
    users: bytes
    notification: bytes
    ttl_s: float | None
    claim: Claim | None


def pack(entry: Entry) -> EncodedEntry:
    """Return the entry with its users packed."""
    return EncodedEntry(len(entry.user_ids), pack_users(entry.user_ids), entry.notification, entry.ttl_s, entry.claim)


def pack_users(user_ids: Sequence[str]) -> bytes:
    """Return users as a MessagePack array."""
    return _encode(user_ids)


def unpack_users(users: bytes) -> tuple[str, ...]:
    """Return the users of a MessagePack array. Raises ValueError (msgspec's) where it is none."""
    return _decode(users)
