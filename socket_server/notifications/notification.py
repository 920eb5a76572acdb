"""A broadcast request: parsed and judged completely before anything happens (contract, section 2).

Pure functions: bytes in, a value or a RequestError out. What the back end sent as `notification` is kept byte for byte, so
that the client receives exactly that: numbers of any size, key order, escapes.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import orjson

from socket_server.errors import RequestError

PRIORITIES = ("low", "normal", "high")
MAX_BATCH = 1_000
MAX_TTL_S = 2**53  # as far as JavaScript counts
MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What a back end asks for.

    user_ids: without duplicates, in the order given; requested_users: how many were given, duplicates counted;
    notification: its JSON; ttl_s: seconds to keep it for recovery, 0: live only, None: as configured; key: its idempotency
    key, with the digest of all that was asked under it.
    """

    user_ids: tuple[str, ...]
    requested_users: int
    notification: bytes
    ttl_s: float | None
    key: str | None = None
    digest: bytes = b""


class _Members(msgspec.Struct):
    notification: msgspec.Raw = msgspec.Raw()


class _Batch(msgspec.Struct):
    broadcasts: list[msgspec.Raw]


_T = TypeVar("_T")


_decoder = json.JSONDecoder()
_white = re.compile(r"[ \t\n\r]*")
_members = msgspec.json.Decoder(_Members)
_batch = msgspec.json.Decoder(_Batch)


def parse(body: bytes, max_users: int, key: str | None = None) -> Broadcast:
    """Return the broadcast that a request body asks for. key: the request's Idempotency-Key.

    Raises RequestError: 400 with the contract's error and the field to mend, 413 for too many users.
    """
    document, exact = _load(body)
    if _has_float_ids(document):
        document = _load_slowly(body)
    judged = _judge(document, max_users, exact)
    _check_key("Idempotency-Key", key)
    return judged.broadcast(_decode(_members, body).notification if exact else None, key, body)


def parse_batch(body: bytes, max_users: int) -> list[Broadcast | RequestError]:
    """Return the broadcasts of a batch, in order; in place of one that cannot be sent, its error.

    Raises RequestError where the batch itself is unusable.
    """
    document, exact = _load(body)
    items = document.get("broadcasts") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise RequestError(400, "broadcasts must be an array", 'send {"broadcasts": [{"userIds": …, "notification": …}]}')
    if len(items) > MAX_BATCH:
        raise RequestError(413, "Too many broadcasts", f"the batch has {len(items)}, the limit is {MAX_BATCH}")
    if any(map(_has_float_ids, items)):
        items = _load_slowly(body)["broadcasts"]
    raws: Sequence[bytes | msgspec.Raw] = _decode(_batch, body).broadcasts if exact else _cut(body)
    broadcasts: list[Broadcast | RequestError] = []
    for item, raw in zip(items, raws, strict=True):
        try:
            exact_item = exact or _is_exact(raw)
            judged = _judge(item, max_users, exact_item)
            key = item.get("idempotencyKey")
            _check_key("idempotencyKey", key)
            notification = _decode(_members, raw).notification if exact_item else None
            broadcasts.append(judged.broadcast(notification, key, bytes(raw)))
        except RequestError as error:
            broadcasts.append(error)
    return broadcasts


def _cut(body: bytes) -> list[bytes]:
    """Return the bytes of each broadcast of a batch that only the slow parser takes. The body is such a batch."""
    text = body.decode()
    found: list[bytes] = []
    at = _past(text, 0, "{")
    while text[at] != "}":
        name, at = _decoder.raw_decode(text, at)
        at = _past(text, at, ":")
        if name == "broadcasts" and text[at] == "[":
            found, at = [], _past(text, at, "[")
            while text[at] != "]":
                _, end = _decoder.raw_decode(text, at)
                found.append(text[at:end].encode())
                at = _past(text, end, ",")
            at = _past(text, at, "]")
        else:
            _, at = _decoder.raw_decode(text, at)
        at = _past(text, at, ",")
    return found


def _past(text: str, at: int, mark: str) -> int:
    """Return where the next thing begins: behind white space and one mark, if that comes next."""
    at = _white.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
    return _white.match(text, at + 1).end() if text[at] == mark else at  # type: ignore[union-attr]


def _is_exact(raw: bytes | msgspec.Raw) -> bool:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True


def _has_float_ids(document: Any) -> bool:
    """Say whether a user id is a float: an integer beyond 64 bits comes out of the fast parser as one, and only the slow
    one keeps its digits."""
    user_ids = document.get("userIds") if isinstance(document, dict) else None
    return isinstance(user_ids, list) and float in set(map(type, user_ids))


@dataclass(frozen=True, slots=True)
class _Judged:
    """One broadcast that may be sent; its notification still as values."""

    user_ids: tuple[str, ...]
    requested_users: int
    notification: dict[str, Any]
    ttl_s: float | None

    def broadcast(self, raw: msgspec.Raw | None, key: str | None, request: bytes) -> Broadcast:
        """raw: the notification's exact bytes, where they may be passed on; request: what was asked under the key."""
        exact = json.dumps(self.notification, allow_nan=False).encode() if raw is None else bytes(raw)
        digest = b"" if key is None else hashlib.blake2b(request, digest_size=16).digest()
        return Broadcast(self.user_ids, self.requested_users, exact, self.ttl_s, key, digest)


def _judge(document: Any, max_users: int, exact: bool) -> _Judged:
    """exact: the document came out of the fast parser, whose strings are Unicode for certain."""
    user_ids = document.get("userIds") if isinstance(document, dict) else None
    if not isinstance(user_ids, list):
        raise RequestError(400, "userIds must be an array", 'send {"userIds": ["123"], "notification": {…}}')
    if len(user_ids) > max_users:
        raise RequestError(
            413,
            "Too many users",
            f"userIds has {len(user_ids)} users, the limit is {max_users}: split the broadcast",
        )
    plain = exact and set(map(type, user_ids)) <= {str}
    ids = user_ids if plain else [_user_id(index, user_id) for index, user_id in enumerate(user_ids)]
    notification = document.get("notification")
    if not isinstance(notification, dict):
        raise RequestError(400, "notification is required", "send an object as notification; {} is fine")
    _check(notification)
    return _Judged(tuple(dict.fromkeys(ids)), len(user_ids), notification, _ttl(document.get("ttl")))


def _check_key(name: str, key: Any) -> None:
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        raise RequestError(
            400, f"{name} must be 1 to {MAX_KEY_LENGTH} printable characters", "send a new one, a UUID for example"
        )


def _decode(decoder: "msgspec.json.Decoder[_T]", body: bytes | msgspec.Raw) -> _T:
    try:
        return decoder.decode(body)
    except RecursionError:
        raise invalid_request("nested too deeply") from None


def _load(body: bytes) -> tuple[Any, bool]:
    """Return the body's JSON, and whether its bytes may be passed on as they are."""
    try:
        return orjson.loads(body), True
    except orjson.JSONDecodeError:
        # JSON.stringify writes half of a surrogate pair (a title cut inside an emoji) as an escape. That is JSON,
        # and JavaScript clients take it, but the fast parser does not.
        return _load_slowly(body), False


def _load_slowly(body: bytes) -> Any:
    try:
        document = json.loads(body.decode(), parse_constant=_refuse_constant)
        json.dumps(document, allow_nan=False)  # 1e999 is a number in JSON and none in the clients
    except RecursionError:
        raise invalid_request("nested too deeply") from None
    except ValueError as error:
        raise invalid_request(str(error)) from None
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def invalid_request(message: str) -> RequestError:
    return RequestError(400, "Invalid request", f"the body is not JSON: {message}")


def _user_id(index: int, value: Any) -> str:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise RequestError(400, f"userIds[{index}] must be Unicode text", "it holds half of a surrogate pair")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    raise RequestError(
        400, f"userIds[{index}] must be a string", f"it is {_kind(value)}; send the user's id as a string or a number"
    )


def _check(notification: dict[str, Any]) -> None:
    for name in ("title", "body"):
        _check_text(f"notification.{name}", notification.get(name, ""))
    metadata = notification.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _wrong("notification.metadata", "an object", metadata)
    priority = metadata.get("priority", "normal")
    if priority not in PRIORITIES:
        raise RequestError(
            400,
            "notification.metadata.priority must be low, normal or high",
            f"it is {priority!r:.40}" if isinstance(priority, str) else f"it is {_kind(priority)}",
        )


def _check_text(path: str, value: Any) -> None:
    if isinstance(value, dict):
        for language, text in value.items():
            if not isinstance(text, str):
                # The key is the caller's: whatever it holds, the answer must be sendable.
                shown = language[:40].encode("utf-8", "backslashreplace").decode()
                raise _wrong(f"{path}.{shown}", "a string", text)
    elif not isinstance(value, str):
        raise _wrong(path, "a string or an object of language to string", value)


def _ttl(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_TTL_S:
        raise RequestError(400, f"ttl must be a number of seconds from 0 to {MAX_TTL_S}", f"it is {_kind(value)}")
    return float(value)


def _wrong(path: str, wanted: str, value: Any) -> RequestError:
    return RequestError(400, f"{path} must be {wanted}", f"it is {_kind(value)}")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
