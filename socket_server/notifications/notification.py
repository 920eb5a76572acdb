"""Broadcast requests: parsed and validated completely before anything happens (docs/protocol.md, section 2).

Pure functions: bytes in, a value or a RequestError out. The bytes of `notification` are kept as the back end sent them, so
that clients receive exactly these: numbers of any size, the order of keys, escapes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from socket_server.auth.user_ids import MAX_USER_ID_BYTES, is_too_long, user_id_text
from socket_server.errors import RequestError
from socket_server.notifications import exact_json

PRIORITIES = ("low", "normal", "high")
MAX_BATCH = 1_000
MAX_TTL_S = 2**53  # the largest integer up to which JavaScript has all of them
MAX_KEY_LENGTH = 255

# UTF-8 has at most 4 bytes for a character: ids of up to this many characters are within MAX_USER_ID_BYTES.
_SHORT_ID = MAX_USER_ID_BYTES // 4


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What a back end asks for.

    user_ids: without duplicates, in the order given. requested_users: the number of ids given, duplicates included.
    notification: its JSON. ttl_s: seconds to keep it for recovery; 0: live only; None: INBOX_TTL. key: its idempotency
    key, with the digest of the request's bytes.
    """

    user_ids: tuple[str, ...]
    requested_users: int
    notification: bytes
    ttl_s: float | None
    key: str | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class _Valid:
    """A broadcast that was validated; its notification is a parsed value."""

    user_ids: tuple[str, ...]
    requested_users: int
    notification: dict[str, Any]
    ttl_s: float | None

    def broadcast(self, exact: bytes | None, key: str | None, request: bytes) -> Broadcast:
        """exact: the bytes of the notification, if clients can take them. request: the bytes that belong to the key."""
        notification = json.dumps(self.notification, allow_nan=False).encode() if exact is None else exact
        digest = b"" if key is None else hashlib.blake2b(request, digest_size=16).digest()
        return Broadcast(self.user_ids, self.requested_users, notification, self.ttl_s, key, digest)


def parse(body: bytes, max_users: int, key: str | None = None) -> Broadcast:
    """Return the broadcast that a request body asks for. key: the request's Idempotency-Key.

    Raises RequestError: 400 with the contract's error and the field to correct, 413 for too many users.
    """
    text = exact_json.without_bom(body)
    document, exact = exact_json.load(text)
    if _has_float_ids(document):
        document = exact_json.load_slowly(text)
    valid = _validate(document, max_users, exact)
    _check_key("Idempotency-Key", key)
    return valid.broadcast(exact_json.notification_of(text) if exact else None, key, body)


def parse_batch(body: bytes, max_users: int) -> list[Broadcast | RequestError]:
    """Return the broadcasts of a batch, in order; instead of a broadcast that cannot be sent, its error.

    Raises RequestError if the batch itself cannot be used.
    """
    text = exact_json.without_bom(body)
    document, exact = exact_json.load(text)
    items = document.get("broadcasts") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise RequestError(400, "broadcasts must be an array", 'send {"broadcasts": [{"userIds": …, "notification": …}]}')
    if len(items) > MAX_BATCH:
        raise RequestError(413, "Too many broadcasts", f"the batch has {len(items)}, the limit is {MAX_BATCH}")
    if any(map(_has_float_ids, items)):
        items = exact_json.load_slowly(text)["broadcasts"]
    broadcasts: list[Broadcast | RequestError] = []
    for item, raw in zip(items, exact_json.broadcasts_of(text, exact=exact), strict=True):
        try:
            exact_item = exact or exact_json.is_exact(raw)
            valid = _validate(item, max_users, exact_item)
            key = item.get("idempotencyKey")
            _check_key("idempotencyKey", key)
            broadcasts.append(valid.broadcast(exact_json.notification_of(raw) if exact_item else None, key, raw))
        except RequestError as error:
            broadcasts.append(error)
    return broadcasts


def _has_float_ids(document: Any) -> bool:
    """Return whether a user id is a float. It may be an integer beyond 64 bits, whose digits only the slow parser keeps."""
    user_ids = document.get("userIds") if isinstance(document, dict) else None
    return isinstance(user_ids, list) and float in set(map(type, user_ids))


def _validate(document: Any, max_users: int, exact: bool) -> _Valid:
    """exact: the fast parser took the document, so its strings hold no half of a surrogate pair."""
    user_ids = document.get("userIds") if isinstance(document, dict) else None
    if not isinstance(user_ids, list):
        raise RequestError(400, "userIds must be an array", 'send {"userIds": ["123"], "notification": {…}}')
    if len(user_ids) > max_users:
        raise RequestError(
            413,
            "Too many users",
            f"userIds has {len(user_ids)} users, the limit is {max_users}: split the broadcast",
        )
    ids = user_ids if exact and _are_short_texts(user_ids) else [_user_id(*each) for each in enumerate(user_ids)]
    notification = document.get("notification")
    if not isinstance(notification, dict):
        raise RequestError(400, "notification is required", "send an object as notification; {} is fine")
    _check_notification(notification)
    return _Valid(tuple(dict.fromkeys(ids)), len(user_ids), notification, _ttl(document.get("ttl")))


def _are_short_texts(user_ids: Sequence[Any]) -> bool:
    """Return whether all ids are valid as they are: texts, not empty, and short. 30 ns an id; _user_id takes 500."""
    try:
        "".join(user_ids)  # the fastest test that all are texts
    except TypeError:
        return False
    return all(user_ids) and len(max(user_ids, key=len, default="")) <= _SHORT_ID


def _user_id(index: int, value: Any) -> str:
    field = f"userIds[{index}]"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise RequestError(
            400, f"{field} must be a string", f"it is {_kind(value)}; send the user's id as a string or a number"
        )
    text = repr(value) if isinstance(value, float) and not value.is_integer() else user_id_text(value)
    if text is None:
        raise RequestError(400, f"{field} must be Unicode text", "it holds half of a surrogate pair")
    if not text:
        raise RequestError(400, f"{field} must not be empty", "send the user's id, or leave this element out")
    if is_too_long(text):
        raise RequestError(
            400, f"{field} must be at most {MAX_USER_ID_BYTES} bytes", f"it has {len(text.encode())} bytes in UTF-8"
        )
    return text


def _check_notification(notification: dict[str, Any]) -> None:
    for name in ("title", "body"):
        _check_text(f"notification.{name}", notification.get(name, ""))
    metadata = notification.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _wrong_type("notification.metadata", "an object", metadata)
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
                # The key may hold half of a surrogate pair, which the answer cannot.
                shown = language[:40].encode("utf-8", "backslashreplace").decode()
                raise _wrong_type(f"{path}.{shown}", "a string", text)
    elif not isinstance(value, str):
        raise _wrong_type(path, "a string or an object of language to string", value)


def _check_key(name: str, key: Any) -> None:
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        raise RequestError(
            400, f"{name} must be 1 to {MAX_KEY_LENGTH} printable characters", "send a new one, a UUID for example"
        )


def _ttl(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_TTL_S:
        raise RequestError(400, f"ttl must be a number of seconds from 0 to {MAX_TTL_S}", f"it is {_kind(value)}")
    return float(value)


def _wrong_type(path: str, wanted: str, value: Any) -> RequestError:
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
