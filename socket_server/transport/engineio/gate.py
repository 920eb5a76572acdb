"""The gate: which Engine.IO requests are accepted, decided before anything is allocated or upgraded.

The error bodies `{"code", "message"}` are those of the Node.js server, which clients know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import orjson

from socket_server import log
from socket_server.limited_log import LimitedLog
from socket_server.transport.engineio.address_limits import AddressLimits
from socket_server.transport.engineio.handshake import HandshakeReader
from socket_server.transport.engineio.origins import MAX_ORIGIN_LENGTH, Origins

PATH = "/socket.io/"

_MAX_QUERY_FIELDS = 50

_log = log.logger("Socket.IO")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused."""

    status: HTTPStatus
    code: int
    message: str

    def response(self) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status line, headers and body."""
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        if self.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            headers.append(("Retry-After", "1"))
        body = orjson.dumps({"code": self.code, "message": self.message})
        return f"{self.status.value} {self.status.phrase}", headers, body


UNKNOWN_TRANSPORT = Refusal(HTTPStatus.BAD_REQUEST, 0, "Transport unknown")
UNKNOWN_SID = Refusal(HTTPStatus.BAD_REQUEST, 1, "Session ID unknown")
BAD_METHOD = Refusal(HTTPStatus.BAD_REQUEST, 2, "Bad handshake method")
BAD_REQUEST = Refusal(HTTPStatus.BAD_REQUEST, 3, "Bad request")
BAD_ORIGIN = Refusal(HTTPStatus.FORBIDDEN, 4, "Forbidden: this origin is not in CLIENT_URL")
BAD_VERSION = Refusal(HTTPStatus.BAD_REQUEST, 5, "Unsupported protocol version")
TOO_LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 3, "Payload too large")
BAD_WEBSOCKET = Refusal(HTTPStatus.BAD_REQUEST, 3, "Not a WebSocket handshake")
BAD_WEBSOCKET_VERSION = Refusal(HTTPStatus.UPGRADE_REQUIRED, 3, "WebSocket version 13 is spoken here")
FULL = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, 3, "Too many connections")
CROWDED = Refusal(HTTPStatus.TOO_MANY_REQUESTS, 3, "Too many connections from this address")
BLOCKED = Refusal(HTTPStatus.TOO_MANY_REQUESTS, 3, "Too many failed authentications from this address")
DRAINING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, 3, "Shutting down")

# Those that an operator must be able to explain to a user. The others are faults of the client.
_LOGGED = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Request:
    """The part of an Engine.IO request that routing needs."""

    method: str
    transport: str
    sid: str | None
    version: str

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> "Request":
        try:
            query = parse_qs(environ.get("QUERY_STRING", ""), max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            query = {}
        return cls(
            method=environ.get("REQUEST_METHOD", ""),
            transport=query.get("transport", [""])[0],
            sid=query["sid"][0] if "sid" in query else None,
            version=query.get("EIO", [""])[0],
        )


class Gate:
    """Decides which requests are accepted. draining: no new session is."""

    def __init__(
        self,
        origins: Origins,
        max_sessions: int,
        handshakes: HandshakeReader | None = None,
        addresses: AddressLimits | None = None,
        transports: Sequence[str] = ("polling", "websocket"),
    ) -> None:
        """max_sessions: the places of this process (MAX_CONNECTIONS)."""
        self.origins = origins
        self.max_sessions = max_sessions
        self.handshakes = handshakes or HandshakeReader()
        self.addresses = addresses or AddressLimits()
        self.transports = tuple(transports)
        self.draining = False
        self._log_refusal = LimitedLog(_log.warning, "more refused handshakes")

    @property
    def upgrades(self) -> tuple[str, ...]:
        """The transports that a polling session may upgrade to."""
        return tuple(name for name in self.transports if name == "websocket")

    def judge(self, request: Request, environ: Mapping[str, Any], sessions: int) -> Refusal | None:
        """Return why a request is refused, and log it if it is a handshake; None: it is accepted.

        sessions: the number of places that a new session cannot be given.
        """
        refusal = self._judge(request, environ, sessions)
        if refusal is not None and refusal.status in _LOGGED:
            self.log_refusal(refusal, environ)
        return refusal

    def log_refusal(self, refusal: Refusal, environ: Mapping[str, Any]) -> None:
        """Log a refused handshake: at most 10 a second, then the number of the others."""
        self._log_refusal(
            "refused handshake status=%d reason=%r origin=%r address=%s",
            refusal.status,
            refusal.message,
            environ.get("HTTP_ORIGIN", "")[:MAX_ORIGIN_LENGTH],
            self.handshakes.address(environ),
        )

    def _judge(self, request: Request, environ: Mapping[str, Any], sessions: int) -> Refusal | None:
        if not self.origins.allow(environ):
            return BAD_ORIGIN
        if request.transport not in self.transports:
            return UNKNOWN_TRANSPORT
        if request.sid is not None:
            return None if request.method in ("GET", "POST") else BAD_REQUEST
        if request.method != "GET":
            return BAD_METHOD
        if request.version != "4":
            return BAD_VERSION
        if self.draining:
            return DRAINING
        if sessions >= self.max_sessions:
            return FULL
        address = self.handshakes.address(environ)
        if self.addresses.crowded(address):
            return CROWDED
        return BLOCKED if self.addresses.blocked(address) else None
