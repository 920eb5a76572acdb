"""The message of a handover: one connection and the request that was read from it.

On the wire: the message's length as 4 bytes, big-endian, with the file descriptor as ancillary data; then the message in
msgpack. The receiver answers one byte, ACCEPTED, or closes.
"""

import io
import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from socket_server.transport.http.request_reader import MAX_HEAD_BYTES

LENGTH = struct.Struct("!I")
ACCEPTED = b"\x06"

# Bytes of a message beside the request's body and head: frames behind a WebSocket handshake, names of variables.
_MAX_OVERHEAD_BYTES = 65_536

# The variables of an environment that come from the client, beside its headers. The receiver knows all others.
_VARIABLES = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "PATH_INFO",
        "QUERY_STRING",
        "RAW_URI",
        "REQUEST_METHOD",
        "SERVER_PROTOCOL",
    }
)

Address = tuple[str | int, ...] | str  # as accept() returns it; that of a Unix socket is a string


class HandoverRequest(msgspec.Struct, frozen=True, array_like=True):
    """The client's address, and the request to answer."""

    address: Address
    variables: dict[str, str]
    body: bytes
    keep_alive: bool
    percent_encoded: bool
    rest: bytes | None  # the bytes behind a WebSocket handshake; None: it is no WebSocket handshake

    @classmethod
    def of(cls, address: Address, environ: Mapping[str, Any]) -> "HandoverRequest":
        return cls(
            address,
            {name: text for name, text in environ.items() if name in _VARIABLES or name.startswith("HTTP_")},
            environ["socket_server.body"],
            environ["socket_server.keep_alive"],
            "socket_server.percent_encoded" in environ,
            environ.get("socket_server.rest"),
        )

    def environ(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request's environment. base: what every environment of this connection has."""
        environ = {
            **base,
            **self.variables,
            "wsgi.input": io.BytesIO(self.body),
            "socket_server.body": self.body,
            "socket_server.keep_alive": self.keep_alive,
        }
        if self.percent_encoded:
            environ["socket_server.percent_encoded"] = True
        if self.rest is not None:
            environ["socket_server.rest"] = self.rest
        return environ

    def encode(self) -> bytes:
        """Return the message with its length."""
        message = msgspec.msgpack.encode(self)
        return LENGTH.pack(len(message)) + message


def decode(message: bytes) -> HandoverRequest:
    """Return a message without its length. Raises msgspec.MsgspecError."""
    return msgspec.msgpack.decode(message, type=HandoverRequest)


def max_bytes(max_body_bytes: int) -> int:
    """Return the size of the largest message, given that of the largest body."""
    return max_body_bytes + MAX_HEAD_BYTES + _MAX_OVERHEAD_BYTES
