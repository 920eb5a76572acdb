"""POST /broadcast and POST /broadcast/batch.

The hot path of the API: one WSGI endpoint. The worker calls it directly, without Flask's request context, routing and
hooks; the Flask routes of the same paths run the same code and serve `flask run`.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, request

from socket_server.api.authorization import Authorization
from socket_server.api.errors import encode_error, unavailable
from socket_server.config import Settings
from socket_server.errors import RequestError
from socket_server.inbox.inbox import InboxUnavailable
from socket_server.metrics.worker import Metrics
from socket_server.notifications import notification
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.runtime.time_slice import YieldingLock
from socket_server.transport.engineio.origins import Origins

Headers = list[tuple[str, str]]
WsgiResponse = tuple[str, Headers, bytes]  # status line, headers, body

# Largest body of a request to any other path: a few fields of JSON.
SMALL_BODY_BYTES = 65_536

# A larger body, the ids of about 1,500 users, takes over a millisecond to parse.
_LARGE_BODY_BYTES = 16_384

_UNLOCKED = nullcontext()

_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_JSON = ("Content-Type", "application/json")
_NOT_JSON = "send the body as Content-Type: application/json"


class Endpoint:
    """Authorizes, parses, sends and answers."""

    def __init__(
        self,
        settings: Settings,
        authorization: Authorization,
        broadcaster: Broadcaster,
        origins: Origins,
        metrics: Metrics,
    ) -> None:
        self._authorization = authorization
        self._max_body_bytes = settings.max_body_bytes
        self._max_users = settings.max_users_per_broadcast
        self._broadcaster = broadcaster
        self._origins = origins
        self._metrics = metrics
        self._large = YieldingLock()
        self._handlers: dict[str, Callable[[bytes, Mapping[str, Any]], object]] = {
            "/broadcast": self._one,
            "/broadcast/": self._one,  # as users of the Node.js server write it
            "/broadcast/batch": self._batch,
            "/broadcast/batch/": self._batch,
        }

    def routes(self) -> dict[tuple[str, str], Callable[..., list[bytes]]]:
        """Return the WSGI application of each (method, path) that the worker calls directly."""
        return {("POST", path): self._serve_directly for path in self._handlers}

    def judge_head(self, environ: dict[str, Any]) -> tuple[int, WsgiResponse | None]:
        """Return how large the body of a request may be, or the response that refuses the request, by its head alone.

        The large body of an unauthorized request is therefore never read.
        """
        if environ["PATH_INFO"] not in self._handlers or environ["REQUEST_METHOD"] != "POST":
            return SMALL_BODY_BYTES, None
        try:
            self._authorization.require(environ)
        except RequestError as error:
            return 0, self._error(error, environ)
        environ["socket_server.trusted"] = True
        return self._max_body_bytes, None

    def respond(self, environ: Mapping[str, Any]) -> WsgiResponse:
        """Return the response to a request, without the CORS headers."""
        try:
            self._authorization.require(environ)
            body = _json_body(environ, self._max_body_bytes)
            answer = self._handlers[environ["PATH_INFO"]](body, environ)
        except RequestError as error:
            return self._error(error)
        except InboxUnavailable as error:
            return self._error(unavailable(error))
        return "200 OK", [_JSON], orjson.dumps(answer)

    def _one(self, body: bytes, environ: Mapping[str, Any]) -> object:
        key = environ.get("HTTP_IDEMPOTENCY_KEY")
        with self._parsing_lock(body):
            parsed = notification.parse(body, self._max_users, key)
        return self._broadcaster.send(parsed, self._authorization.owner(environ)).to_json()

    def _batch(self, body: bytes, environ: Mapping[str, Any]) -> object:
        with self._parsing_lock(body):
            parsed = notification.parse_batch(body, self._max_users)
        accepted = [each for each in parsed if isinstance(each, Broadcast)]
        sent = iter(self._broadcaster.send_all(accepted, self._authorization.owner(environ)))
        results = [each if isinstance(each, RequestError) else next(sent) for each in parsed]
        return {
            "results": [
                {"error": each.error, "message": each.message, "status": each.status}
                if isinstance(each, RequestError)
                else each.to_json()
                for each in results
            ]
        }

    def _parsing_lock(self, body: bytes) -> AbstractContextManager[None]:
        """Return the lock for parsing a body.

        Large bodies are parsed one after the other: publishers that were answered together post together again, and
        parsing all of them in one pass of the event loop would stall every other greenlet.
        """
        return self._large if len(body) > _LARGE_BODY_BYTES else _UNLOCKED

    def _serve_directly(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        started_at = time.perf_counter()
        status, headers, body = self.respond(environ)
        self._metrics.count_request(
            environ["PATH_INFO"].rstrip("/"), "POST", int(status[:3]), time.perf_counter() - started_at
        )
        start_response(status, headers + self._origins.headers(environ))
        return [body]

    def _error(self, error: RequestError, cors_for: Mapping[str, Any] | None = None) -> WsgiResponse:
        headers, body = encode_error(error)
        if cors_for is not None:
            headers += self._origins.headers(cors_for)
        return _STATUS[error.status], headers, body


def blueprint(endpoint: Endpoint) -> Blueprint:
    """Return the Flask routes of the endpoint."""
    bp = Blueprint("broadcast", __name__)

    @bp.post("/broadcast")
    @bp.post("/broadcast/", strict_slashes=True)
    @bp.post("/broadcast/batch")
    @bp.post("/broadcast/batch/", strict_slashes=True)
    def broadcast() -> Response:
        """Store and deliver one notification, or a batch. 200: stored.

        400: bad body, 401: no API key, 409 and 422: Idempotency-Key in use, 413: too large, 415: not JSON, 503: the inbox
        is unavailable.
        """
        status, headers, body = endpoint.respond(request.environ)
        return Response(body, status, headers)

    return bp


def _json_body(environ: Mapping[str, Any], max_bytes: int) -> bytes:
    """Return the body of a JSON request. Raises RequestError 413 or 415."""
    content_type: str = environ.get("CONTENT_TYPE", "")
    if content_type != "application/json" and content_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "Unsupported Media Type", _NOT_JSON)
    body: bytes | None = environ.get("socket_server.body")  # already read by our worker
    if body is None:
        declared = environ.get("CONTENT_LENGTH") or "0"
        size = int(declared) if declared.isdecimal() else 0
        body = environ["wsgi.input"].read(min(size, max_bytes + 1))
    if len(body) > max_bytes:
        raise RequestError(413, "Request Entity Too Large", f"the body is over {max_bytes} bytes: split the broadcast")
    return body
