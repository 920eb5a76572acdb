"""Engine.IO packets (protocol 4): encoded once into the bytes of every transport.

Source: github.com/socketio/engine.io-protocol.
"""

import base64
from collections.abc import Sequence

import engineio.packet
import orjson

from socket_server.transport.engineio import frames

# Packet types: the first character of a text packet. A binary packet is a MESSAGE.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"

BASE64 = "b"  # the first character of a binary packet in a text: base64 follows
RECORD_SEPARATOR = "\x1e"  # between the packets of a polling payload

MAX_PACKETS_PER_PAYLOAD = 64  # in one polling request; the official client sends fewer


class Packet(engineio.packet.Packet):
    """One packet and its encodings, each made once and shared by every connection that is sent it.

    Also a packet of python-engineio, so that its server (`flask run`) sends it like its own.
    """

    def __init__(self, payload: bytes, *, binary: bool = False) -> None:
        """payload: the content of the WebSocket message: `4…` in UTF-8, or the bytes of a binary attachment."""
        self.payload = payload
        self.binary = binary
        self.packet_type = int(MESSAGE) if binary else payload[0] - 0x30
        self.data = None  # python-engineio logs it, and notifications must not be logged
        self._frame: bytes | None = None
        self._text: str | None = None

    # Not cached_property: before Python 3.12 it takes a lock, which costs more than encoding a frame.

    @property
    def frame(self) -> bytes:
        """The packet as one WebSocket frame."""
        if self._frame is None:
            self._frame = frames.encode(frames.BINARY if self.binary else frames.TEXT, self.payload)
        return self._frame

    @property
    def text(self) -> str:
        """The packet in a polling payload: binary as `b` and base64."""
        if self._text is None:
            self._text = BASE64 + base64.b64encode(self.payload).decode() if self.binary else self.payload.decode()
        return self._text

    def encode(self, b64: bool = False) -> str | bytes:
        """Return the packet for a WebSocket message, or for polling (b64); python-engineio calls it."""
        return self.payload if self.binary and not b64 else self.text


PING_PACKET = Packet(PING.encode())
NOOP_PACKET = Packet(NOOP.encode())
CLOSE_PACKET = Packet(CLOSE.encode())
PROBE_REPLY = Packet(b"3probe")


def wrap(packet: engineio.packet.Packet) -> Packet:
    """Return a packet of python-engineio as a Packet."""
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


def encode_payload(packets: Sequence[Packet]) -> bytes:
    """Return the body of a polling response."""
    return RECORD_SEPARATOR.join([packet.text for packet in packets]).encode()


def decode_payload(body: bytes) -> list[str | bytes]:
    """Return the packets of a polling request: str, or bytes for a binary packet.

    Raises ValueError if the body is not UTF-8, has an empty packet, too many packets, or bad base64.
    """
    texts = body.decode().split(RECORD_SEPARATOR, MAX_PACKETS_PER_PAYLOAD)
    if len(texts) > MAX_PACKETS_PER_PAYLOAD:
        raise ValueError(f"more than {MAX_PACKETS_PER_PAYLOAD} packets in one payload")
    if not all(texts):
        raise ValueError("empty packet")
    return [decode_text(text) for text in texts]


def decode_text(text: str) -> str | bytes:
    """Return a text packet, or the bytes of a binary packet in base64. Raises ValueError for bad base64.

    Binary is in base64 on polling, and on a WebSocket whose client has the option `forceBase64`.
    """
    return base64.b64decode(text[1:], validate=True) if text.startswith(BASE64) else text
