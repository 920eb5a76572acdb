"""Request bodies as JSON, with the exact bytes of the parts that are passed on to clients. Pure functions.

orjson parses nearly every body. json, which is slower, parses what orjson refuses or changes: half of a surrogate pair as
an escape, and integers beyond 64 bits.
"""

import codecs
import json
import re
from typing import Any, TypeVar

import msgspec
import orjson

from socket_server.errors import RequestError


class _Notification(msgspec.Struct):
    notification: msgspec.Raw = msgspec.Raw()


class _Broadcasts(msgspec.Struct):
    broadcasts: list[msgspec.Raw]


_T = TypeVar("_T")

_notification = msgspec.json.Decoder(_Notification)
_broadcasts = msgspec.json.Decoder(_Broadcasts)
_decoder = json.JSONDecoder()
_white_space = re.compile(r"[ \t\n\r]*")


def without_bom(body: bytes) -> bytes:
    """Return the body without the UTF-8 byte order mark that some clients write before it (RFC 8259, section 8.1)."""
    return body.removeprefix(codecs.BOM_UTF8)


def load(text: bytes) -> tuple[Any, bool]:
    """Return the value of a JSON text, and whether clients can take its bytes as they are. Raises RequestError 400."""
    try:
        return orjson.loads(text), True
    except orjson.JSONDecodeError:
        # JSON.stringify writes half of a surrogate pair (a title cut inside an emoji) as an escape. That is JSON, and
        # JavaScript clients take it, but orjson does not.
        return load_slowly(text), False


def load_slowly(text: bytes) -> Any:
    """Return the value of a JSON text, with integers of any size. Raises RequestError 400."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
        json.dumps(value, allow_nan=False)  # 1e999 is a number in JSON, but becomes infinite in clients
    except RecursionError:
        raise invalid_request("nested too deeply") from None
    except ValueError as error:
        raise invalid_request(str(error)) from None
    return value


def is_exact(text: bytes) -> bool:
    """Return whether clients can take the bytes of this JSON text as they are."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def notification_of(text: bytes) -> bytes:
    """Return the bytes of the member `notification`. The text is an exact object that has it."""
    return bytes(_decode(_notification, text).notification)


def broadcasts_of(text: bytes, *, exact: bool) -> list[bytes]:
    """Return the bytes of each element of the member `broadcasts`. The text is an object in which it is an array."""
    return [bytes(each) for each in _decode(_broadcasts, text).broadcasts] if exact else _cut_broadcasts(text.decode())


def invalid_request(message: str) -> RequestError:
    """Return the refusal of a body that is not JSON."""
    return RequestError(400, "Invalid request", f"the body is not JSON: {message}")


def _cut_broadcasts(text: str) -> list[bytes]:
    found: list[bytes] = []
    at = _skip(text, 0, "{")
    while text[at] != "}":
        name, at = _decoder.raw_decode(text, at)
        at = _skip(text, at, ":")
        if name == "broadcasts" and text[at] == "[":
            found, at = [], _skip(text, at, "[")
            while text[at] != "]":
                _, end = _decoder.raw_decode(text, at)
                found.append(text[at:end].encode())
                at = _skip(text, end, ",")
            at = _skip(text, at, "]")
        else:
            _, at = _decoder.raw_decode(text, at)
        at = _skip(text, at, ",")
    return found


def _skip(text: str, at: int, mark: str) -> int:
    """Return the position after white space, after this mark if it is next, and after white space."""
    at = _white_space.match(text, at).end()  # type: ignore[union-attr]  # the pattern matches the empty string too
    return _white_space.match(text, at + 1).end() if text[at] == mark else at  # type: ignore[union-attr]


def _decode(decoder: "msgspec.json.Decoder[_T]", text: bytes) -> _T:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise invalid_request("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
