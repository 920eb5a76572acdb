"""Entries as append.lua reads them, and records as the log holds them. Pure functions.

MessagePack strings are written by hand: Redis's decoder (cmsgpack) is older than the binary type, and the notification's
bytes are copied once.
"""

import struct
from collections.abc import Iterable, Sequence

import msgspec

from socket_server.inbox.inbox import MICROSECONDS, Claim, Entry, Record
from socket_server.redis_access.keys import Keys

_LONG = struct.Struct(">BI")  # the head of a MessagePack array or string with a 4-byte length
_ARRAY_32, _STRING_32 = 0xDD, 0xDB
_NIL, _ARRAY_OF_2, _ARRAY_OF_3, _ARRAY_OF_4 = b"\xc0", b"\x92", b"\x93", b"\x94"


class _LoggedEntry(msgspec.Struct, array_like=True):
    """What of an entry is delivered."""

    user_ids: tuple[str, ...]
    notification: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_decode_entries = msgspec.msgpack.Decoder(list[_LoggedEntry]).decode
_decode_offsets = msgspec.msgpack.Decoder(list[int]).decode


def encode_entries(entries: Sequence[Entry], retention_s: float, keys: Keys) -> tuple[bytes, bytes]:
    """Return entries and their claims as two MessagePack arrays. retention_s: retention by age, seconds."""
    claims = [_NIL if entry.claim is None else _encode_claim(entry.claim, keys) for entry in entries]
    while claims and claims[-1] == _NIL:
        claims.pop()
    return _array([_encode_entry(entry, retention_s) for entry in entries]), _array(claims)


def _encode_entry(entry: Entry, retention_s: float) -> bytes:
    users, body = _encode(entry.user_ids), _string(entry.notification)
    if entry.ttl_s is None or entry.ttl_s >= retention_s:
        return _ARRAY_OF_2 + users + body
    return _ARRAY_OF_3 + users + body + _encode(round(entry.ttl_s * MICROSECONDS))


def _encode_claim(claim: Claim, keys: Keys) -> bytes:
    encoded = _string(keys.claim(claim.key)) + _string(claim.digest) + _string(claim.answer)
    if claim.former_key is None:
        return _ARRAY_OF_3 + encoded
    return _ARRAY_OF_4 + encoded + _string(keys.claim(claim.former_key))


def _array(elements: Sequence[bytes]) -> bytes:
    return _LONG.pack(_ARRAY_32, len(elements)) + b"".join(elements)


def _string(text: bytes) -> bytes:
    return _LONG.pack(_STRING_32, len(text)) + text


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a stream's entry, which Redis sends as names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def offset_of(entry_id: bytes) -> int:
    """Return the last offset of an entry of the log, by its id."""
    return int(entry_id[:-2])


def decode_log(entries: Iterable[tuple[bytes, Sequence[bytes]]], after: int) -> list[Record]:
    """Return the records in entries of the log (id, flat fields) with an offset greater than `after`."""
    found: list[Record] = []
    for _, flat in entries:
        fields = fields_of(flat)
        before = int(fields[b"before"])
        for offset, entry in zip(_decode_offsets(fields[b"offsets"]), _decode_entries(fields[b"entries"]), strict=True):
            if offset > after:
                body = bytes(memoryview(entry.notification)[_LONG.size :])
                found.append(Record(offset, entry.user_ids, body, before))
            before = max(before, offset)
    return found
