"""Requests for the tests of handovers."""

from typing import Any

from socket_server.transport.http.handover.message import HandoverRequest
from socket_server.transport.http.request_reader import RequestReader

BASE = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "203.0.113.7"}
ADDRESS = ("203.0.113.7", 50_000)
GET = b"GET /socket.io/?EIO=4&transport=polling&sid=a.b HTTP/1.1\r\nHost: x\r\nCookie: a=\xe9\r\n\r\n"


def read_request(data: bytes) -> dict[str, Any]:
    """Return the environment of one request."""
    (environ,) = RequestReader(dict(BASE), lambda _: (1_000_000, None)).feed(data)
    return environ


A_REQUEST = HandoverRequest.of(ADDRESS, read_request(GET))
