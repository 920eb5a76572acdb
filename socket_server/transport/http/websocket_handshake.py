"""The server's side of the WebSocket handshake (RFC 6455 section 4.2). Pure functions."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from socket_server.transport.engineio.gate import BAD_WEBSOCKET, BAD_WEBSOCKET_VERSION
from socket_server.transport.http.response import Response

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


def accept_key(key: str) -> bytes | None:
    """Return the Sec-WebSocket-Accept of a Sec-WebSocket-Key; None if it is not base64 of 16 bytes."""
    try:
        if len(base64.b64decode(key.strip(), validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key.strip().encode() + _GUID).digest())  # noqa: S324 - the RFC's choice


def encode_switching(environ: Mapping[str, Any]) -> bytes:
    """Return the response that accepts a handshake that judge_handshake has accepted."""
    accept = accept_key(environ["HTTP_SEC_WEBSOCKET_KEY"]) or b""
    return _SWITCHING % (accept, _subprotocol_header(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")))


def _subprotocol_header(offered: str) -> bytes:
    """Return the header that accepts the first offered subprotocol, as Node.js's `ws` does; b"" if there is none.

    A client that offers some closes the connection if none is accepted (RFC 6455 section 4.1). No subprotocol changes what
    is sent.
    """
    first = next((name for part in offered.split(",") if (name := part.strip())), "")
    return b"Sec-WebSocket-Protocol: %b\r\n" % first.encode() if _TOKEN.fullmatch(first) else b""


def judge_handshake(environ: Mapping[str, Any]) -> Response | None:
    """Return the response to a request that is not a WebSocket handshake of version 13; None if it is one."""
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        status, headers, body = BAD_WEBSOCKET_VERSION.response()
        return status, [*headers, ("Sec-WebSocket-Version", "13")], body
    if (
        environ["REQUEST_METHOD"] != "GET"
        or environ["SERVER_PROTOCOL"] != "HTTP/1.1"
        or "upgrade" not in environ.get("HTTP_CONNECTION", "").lower()
        or accept_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")) is None
    ):
        return BAD_WEBSOCKET.response()
    return None
