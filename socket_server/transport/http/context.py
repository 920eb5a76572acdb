"""What all HTTP connections of a worker share, and how a request is judged by its head."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from socket_server.transport.engineio.gate import PATH
from socket_server.transport.http.errors import HttpError
from socket_server.transport.http.handover.sender import HandoverSender
from socket_server.transport.http.open_connections import OpenConnections
from socket_server.transport.http.proxy_protocol import ProxyProtocol
from socket_server.transport.http.response import DateHeader, Headers, Response, encode_response

HEAD_S = 10.0  # longest time for the head of a request; also for a TLS handshake and a PROXY header
IDLE_S = 75.0  # how long a connection may stay open between two requests

_REASONS = {"413": "Request Entity Too Large"}  # as Flask's own errors name it

# Writes a line of the access log: environment, status, headers, bytes of the body, when the request started (time.time).
LogAccess = Callable[[Mapping[str, Any], str, Headers, int, float], object]


@dataclass(frozen=True, slots=True)
class HttpContext:
    """What all HTTP connections of a worker share."""

    application: Callable[..., Any]  # WSGI
    engineio_server: Any
    judge_head: Callable[[dict[str, Any]], tuple[int, Response | None]]  # of requests that are not Engine.IO's
    cors_headers: Callable[[Mapping[str, Any]], Headers]
    connections: OpenConnections
    handovers: HandoverSender
    tls: ssl.SSLContext | None = None
    proxy_protocol: ProxyProtocol | None = None
    log_access: LogAccess | None = None
    head_timeout_s: float = HEAD_S
    idle_timeout_s: float = IDLE_S
    date: DateHeader = field(default_factory=DateHeader)

    @property
    def draining(self) -> bool:
        return bool(self.engineio_server.gate.draining)

    def judge(self, environ: dict[str, Any]) -> tuple[int, bytes | None]:
        """Judge a request by its head: the number of bytes that its body may have, and the response that refuses it or
        None."""
        if environ["PATH_INFO"].startswith(PATH):
            limit, refusal = self.engineio_server.judge_body(environ)
            if refusal is not None:
                status, headers, body = refusal
                refusal = status, headers + self.cors_headers(environ), body
        else:
            limit, refusal = self.judge_head(environ)
        if refusal is None:
            return limit, None
        return 0, self.encode(refusal, close=True)

    def encode(self, response: Response, close: bool) -> bytes:
        status, headers, body = response
        return encode_response(status, headers, body, self.date.now(), close)

    def encode_error(self, error: HttpError, environ: Mapping[str, Any]) -> bytes:
        """Return the response for an error of the HTTP layer. environ: what is known of the request."""
        code, _, reason = error.status.partition(" ")
        body = orjson.dumps({"error": _REASONS.get(code, reason), "message": error.message})
        headers = [("Content-Type", "application/json"), *error.headers, *self.cors_headers(environ)]
        return self.encode((error.status, headers, body), close=True)
