"""Packets of Engine.IO protocol 4 and Socket.IO protocol 5: encoded once into the bytes of every transport.

Sources: the protocol documents, github.com/socketio/engine.io-protocol and github.com/socketio/socket.io-protocol.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import engineio.packet
import orjson

from socket_server.transport.engineio import frames

# Engine.IO packet types; the first character of a text packet.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"

# Socket.IO packet types; the second character of a text packet.
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = "0123456"

RECORD_SEPARATOR = "\x1e"  # between the packets of a polling payload

# A polling payload may hold many packets; more than this is no client's, and each costs time.
MAX_PACKETS_PER_PAYLOAD = 64


class Packet(engineio.packet.Packet):
    """One Engine.IO packet with its encodings, each made once and shared by all who send it.

    An upstream packet as well, so that the stock servers send it like their own.
    """

    def __init__(self, payload: bytes, *, binary: bool = False) -> None:
        """payload: the packet as it stands in a WebSocket message: b"4…" in UTF-8, or a binary attachment's bytes."""
        self.payload = payload
        self.binary = binary
        self.packet_type = int(MESSAGE) if binary else payload[0] - 0x30
        self.data = None  # the upstream's logs show it; notifications do not belong there
        self._frame: bytes | None = None
        self._text: str | None = None

    # Not cached_property: that takes a lock (until Python 3.12), which costs more than a frame.

    @property
    def frame(self) -> bytes:
        """The packet as one WebSocket frame."""
        if self._frame is None:
            self._frame = frames.encode(frames.BINARY if self.binary else frames.TEXT, self.payload)
        return self._frame

    @property
    def text(self) -> str:
        """The packet as it stands in a polling payload: binary as 'b' and base64."""
        if self._text is None:
            self._text = "b" + base64.b64encode(self.payload).decode() if self.binary else self.payload.decode()
        return self._text

    def encode(self, b64: bool = False) -> str | bytes:
        """Return the packet as the stock servers ask for it: for a WebSocket message, or (b64) for polling."""
        return self.payload if self.binary and not b64 else self.text


PING_PACKET = Packet(PING.encode())
NOOP_PACKET = Packet(NOOP.encode())
CLOSE_PACKET = Packet(CLOSE.encode())
PROBE_REPLY = Packet(b"3probe")


def wrap(packet: engineio.packet.Packet) -> Packet:
    """Return a packet of the stock servers as one of ours."""
    if isinstance(packet, Packet):
        return packet
    encoded = packet.encode()
    return Packet(encoded.encode()) if isinstance(encoded, str) else Packet(bytes(encoded), binary=True)


def encode_open(sid: str, upgrades: Sequence[str], ping_interval_s: float, ping_timeout_s: float, max_bytes: int) -> Packet:
    """Return the OPEN packet, the first of a session."""
    handshake = {
        "sid": sid,
        "upgrades": list(upgrades),
        "pingInterval": int(ping_interval_s * 1000),
        "pingTimeout": int(ping_timeout_s * 1000),
        "maxPayload": max_bytes,
    }
    return Packet(OPEN.encode() + orjson.dumps(handshake))


def encode_connect(sid: str, pid: str) -> Packet:
    """Return the server's CONNECT to the default namespace."""
    return Packet(b"40" + orjson.dumps({"sid": sid, "pid": pid}))


def encode_event(name: str, *arguments: Any) -> Packet:
    """Return an EVENT of the default namespace that carries no offset."""
    return Packet(b"42" + orjson.dumps(without_offset([name, *arguments])))


def without_offset(event: list[Any]) -> list[Any]:
    """Return an event (its name and arguments) such that no client takes its end for an offset.

    Clients that recover remember the last element of every event if it is a string, be it the event's own name.
    """
    return [*event, None] if isinstance(event[-1], str) else event


def encode_notification(notification: bytes, offset: int) -> Packet:
    """Return the event `notification`: its JSON exactly as the back end sent it, then the offset as a string."""
    return Packet(b'42["notification",%b,"%d"]' % (notification, offset))


def encode_payload(packets: Sequence[Packet]) -> bytes:
    """Return the body of a polling response."""
    return RECORD_SEPARATOR.join([packet.text for packet in packets]).encode()


def decode_payload(body: bytes) -> list[str | bytes]:
    """Return the packets of a polling request: str, or bytes for a binary attachment.

    Raises ValueError where it is not UTF-8, holds an empty packet, too many of them, or bad base64.
    """
    texts = body.decode().split(RECORD_SEPARATOR)
    if len(texts) > MAX_PACKETS_PER_PAYLOAD:
        raise ValueError(f"more than {MAX_PACKETS_PER_PAYLOAD} packets in one payload")
    if not all(texts):
        raise ValueError("empty packet")
    return [base64.b64decode(text[1:], validate=True) if text[0] == "b" else text for text in texts]


@dataclass(frozen=True, slots=True)
class SocketPacket:
    """A decoded Socket.IO packet. data: its JSON, or None; attachments: how many binary packets follow it."""

    kind: str
    namespace: str
    id: int | None
    data: Any
    attachments: int


# Deep enough for any client, far below the interpreter's own limit.
MAX_JSON_DEPTH = 64
MAX_ATTACHMENTS = 10
_MAX_ID_DIGITS = 15  # ids are JavaScript integers
_HEAD = re.compile(r"([0-6])(?:(\d{1,10})-)?(?:(/[^,]{0,255})(?:,|$))?(\d*)", re.ASCII)
# What a client may not send as an event: the names that Socket.IO itself uses for a connection's life.
RESERVED_EVENTS = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})


def decode_socket_packet(text: str) -> SocketPacket:
    """Return the Socket.IO packet in the text of an Engine.IO MESSAGE (without its '4').

    Raises ValueError where the format, the JSON or its shape is not what protocol 5 allows.
    """
    head = _HEAD.match(text)
    if head is None:
        raise ValueError("unknown packet type")
    kind, attachments, namespace, packet_id = head.groups()
    if len(packet_id) > _MAX_ID_DIGITS:
        raise ValueError("acknowledgement id too long")
    count = int(attachments or 0)
    if count > MAX_ATTACHMENTS or bool(attachments) != (kind in (BINARY_EVENT, BINARY_ACK)):
        raise ValueError("bad number of attachments")
    rest = text[head.end() :]
    data = orjson.loads(rest) if rest else None  # its error is a ValueError, also for what is nested beyond 1,024
    if rest.count("[") + rest.count("{") > MAX_JSON_DEPTH and _too_deep(data):
        raise ValueError(f"JSON deeper than {MAX_JSON_DEPTH}")
    _check_shape(kind, data, packet_id)
    return SocketPacket(kind, (namespace or "/").partition("?")[0], int(packet_id) if packet_id else None, data, count)


def _check_shape(kind: str, data: Any, packet_id: str) -> None:
    if kind == CONNECT:
        good = data is None or isinstance(data, dict)
    elif kind == DISCONNECT:
        good = data is None
    elif kind in (EVENT, BINARY_EVENT):
        good = isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED_EVENTS
    elif kind in (ACK, BINARY_ACK):
        good = isinstance(data, list) and bool(packet_id)
    else:
        good = False  # CONNECT_ERROR is the server's
    if not good:
        raise ValueError("invalid payload")


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


def attach(data: Any, attachments: Sequence[bytes]) -> Any:
    """Return the JSON of a binary packet with its placeholders replaced. Raises ValueError where one names nothing."""
    if isinstance(data, list):
        return [attach(item, attachments) for item in data]
    if isinstance(data, dict):
        if data.get("_placeholder") is True:
            number = data.get("num")
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(attachments):
                raise ValueError("illegal attachment")
            return attachments[number]
        return {name: attach(value, attachments) for name, value in data.items()}
    return data
