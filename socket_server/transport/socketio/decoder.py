"""Decodes the Socket.IO packets that clients send (protocol 5). Pure functions.

Source: github.com/socketio/socket.io-protocol; for what it does not define, socket.io-parser. What the parser accepts
is accepted here too, within the limits below.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

# Packet types: the first character of the packet.
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = "0123456"

MAX_JSON_DEPTH = 64  # the parser below is recursive
MAX_ATTACHMENTS = 10
_DIGITS_OF_64_BITS = 19
_MAX_ID_DIGITS = 20  # JavaScript's largest exact integer has 16
_HEAD = re.compile(r"([0-6])(?:(\d{1,10})-)?(?:(/[^,]{0,255})(?:,|$))?(\d*)", re.ASCII)

# Names that Socket.IO uses for a connection's own events: a client cannot send them.
RESERVED_EVENTS = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})


@dataclass(frozen=True, slots=True)
class Head:
    """A packet without its JSON. attachments: the number of binary packets that follow; json: the text to be parsed."""

    kind: str
    namespace: str
    id: int | None
    attachments: int
    json: str


def decode_head(text: str) -> Head:
    """Return the head of the packet in an Engine.IO MESSAGE (without its "4"). Raises ValueError."""
    match = _HEAD.match(text)
    if match is None:
        raise ValueError("unknown packet type")
    kind, attachments, namespace, packet_id = match.groups()
    if len(packet_id) > _MAX_ID_DIGITS:
        raise ValueError("acknowledgement id too long")
    count = int(attachments or 0)
    if count > MAX_ATTACHMENTS or bool(attachments) != (kind in (BINARY_EVENT, BINARY_ACK)):
        raise ValueError("bad number of attachments")
    return Head(
        kind,
        (namespace or "/").partition("?")[0],
        int(packet_id) if packet_id else None,
        count,
        text[match.end() :],
    )


def decode_data(head: Head, attachments: Sequence[bytes] = ()) -> Any:
    """Return a packet's JSON with its placeholders replaced by the attachments; None if it has none.

    Raises ValueError if protocol 5 does not allow the JSON or its shape, it is too deep, or a placeholder names nothing.
    """
    binary = head.kind in (BINARY_EVENT, BINARY_ACK)
    if not head.json and not binary and head.kind != CONNECT_ERROR:
        return None
    data = _parse(head.json)
    if not _has_right_shape(head.kind, data):
        raise ValueError("invalid payload")
    return _attach(data, attachments) if binary else data


def _parse(text: str) -> Any:
    try:
        data = orjson.loads(text)  # raises below a depth of 1,024
    except orjson.JSONDecodeError:
        data = _parse_as_javascript(text)
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _too_deep(data):
        raise ValueError(f"JSON deeper than {MAX_JSON_DEPTH}")
    return data


def _parse_as_javascript(text: str) -> Any:
    r"""Parse JSON that JavaScript writes and orjson refuses: half of an emoji (`"\ud83d"`), and numbers beyond its range.

    Half an emoji becomes U+FFFD. Raises ValueError for all other text.
    """
    try:
        return _without_surrogates(json.loads(text, parse_int=_parse_int, parse_constant=_refuse_constant))
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < _DIGITS_OF_64_BITS else float(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _without_surrogates(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_without_surrogates(item) for item in data]
        case dict():
            return {_without_surrogates(name): _without_surrogates(value) for name, value in data.items()}
        case _:
            return data


def _has_right_shape(kind: str, data: Any) -> bool:
    match kind:
        case "0":  # CONNECT
            return isinstance(data, dict)
        case "2" | "5":  # EVENT, BINARY_EVENT
            return isinstance(data, list) and bool(data) and _is_event_name(data[0])
        case "3" | "6":  # ACK, BINARY_ACK
            return isinstance(data, list)
        case _:
            return False  # DISCONNECT has no payload, and only the server sends CONNECT_ERROR


def _is_event_name(name: Any) -> bool:
    """Return whether socket.io-parser accepts this name: a number, or a string that is not reserved."""
    if isinstance(name, str):
        return name not in RESERVED_EVENTS
    return isinstance(name, (int, float)) and not isinstance(name, bool)


def _too_deep(data: Any) -> bool:
    level = [data]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [
            child
            for item in level
            if isinstance(item, (list, dict))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def _attach(data: Any, attachments: Sequence[bytes]) -> Any:
    if isinstance(data, list):
        return [_attach(item, attachments) for item in data]
    if isinstance(data, dict):
        if data.get("_placeholder") is True:
            number = data.get("num")
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(attachments):
                raise ValueError("illegal attachment")
            return attachments[number]
        return {name: _attach(value, attachments) for name, value in data.items()}
    return data
