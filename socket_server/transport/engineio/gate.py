"""The gate: which Engine.IO requests are let in, decided before anything is allocated or upgraded.

The error bodies `{"code", "message"}` are those of the Node.js server, which clients know.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import orjson

from socket_server.transport.engineio.handshake import Network, client_address
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.engineio.rate import RateByName

PATH = "/socket.io/"


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
            query = parse_qs(environ.get("QUERY_STRING", ""), max_num_fields=50)
        except ValueError:
            query = {}
        return cls(
            method=environ.get("REQUEST_METHOD", ""),
            transport=query.get("transport", [""])[0],
            sid=query["sid"][0] if "sid" in query else None,
            version=query.get("EIO", [""])[0],
        )


class Gate:
    """What this server lets in. draining: it lets no new session in."""

    def __init__(
        self,
        origins: Origins,
        max_connections: int,
        trusted_proxies: Sequence[Network] = (),
        max_connections_per_address: int = 0,
        max_failures_per_minute: float = 300,
        transports: Sequence[str] = ("polling", "websocket"),
    ) -> None:
        self.origins = origins
        self.trusted_proxies = tuple(trusted_proxies)
        self.draining = False
        self._max_connections = max_connections
        self._max_per_address = max_connections_per_address  # 0: no limit
        self._per_address: dict[str, int] = {}
        self._elsewhere: dict[str, dict[str, int]] = {}  # node -> address -> connections
        self.on_failed: Callable[[str], object] = _nothing  # for the other nodes: an address
        self.on_counted: Callable[[str, int], object] = _nothing  # an address, and how many connections it has here
        self._failures = RateByName(max_failures_per_minute / 60, max_failures_per_minute)
        self.transports = tuple(transports)

    @property
    def upgrades(self) -> tuple[str, ...]:
        """What a polling session may upgrade to."""
        return tuple(name for name in self.transports if name == "websocket")

    def judge(self, request: Request, environ: Mapping[str, Any], open_sessions: int) -> Refusal | None:
        """Say why a request is refused; None: let it in."""
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
        if open_sessions >= self._max_connections:
            return FULL
        return self._judge_address(
            client_address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), self.trusted_proxies)
        )

    def _judge_address(self, address: str) -> Refusal | None:
        if self._max_per_address and self._count(address) >= self._max_per_address:
            return CROWDED
        return BLOCKED if self._failures.wait_s(address, time.monotonic()) else None

    def _count(self, address: str) -> int:
        return self._per_address.get(address, 0) + sum(each.get(address, 0) for each in self._elsewhere.values())

    def opened(self, address: str) -> None:
        """Count a session that begins, where addresses are limited."""
        if self._max_per_address:
            count = self._per_address[address] = self._per_address.get(address, 0) + 1
            self.on_counted(address, count)

    def closed(self, address: str) -> None:
        """Count a session that ends."""
        if self._max_per_address:
            left = self._per_address.get(address, 0) - 1
            if left > 0:
                self._per_address[address] = left
            else:
                self._per_address.pop(address, None)
            self.on_counted(address, max(0, left))

    def failed(self, address: str) -> None:
        """Count a failed authentication."""
        self._failures.take(address, time.monotonic())
        self.on_failed(address)

    # What other nodes count

    def counts(self) -> Mapping[str, int]:
        """Return how many sessions each address has here; empty where addresses are not limited."""
        return self._per_address

    def failed_elsewhere(self, address: str, count: int) -> None:
        """Count failed authentications on another node."""
        self._failures.take(address, time.monotonic(), count)

    def set_elsewhere(self, node: str, address: str, count: int) -> None:
        """Another node has so many sessions of an address."""
        counts = self._elsewhere.setdefault(node, {})
        if count:
            counts[address] = count
        else:
            counts.pop(address, None)

    def set_all_elsewhere(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """All other nodes have these, and no others."""
        self._elsewhere = {node: dict(each) for node, each in counts.items()}

    def forget_elsewhere(self, node: str) -> None:
        """Another node has gone."""
        self._elsewhere.pop(node, None)


def _nothing(*_: Any) -> None:
    pass
