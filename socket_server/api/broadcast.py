"""POST /broadcast and POST /broadcast/batch.

The hottest path of the server: one WSGI endpoint, which the Flask routes run and the worker also calls directly.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, request

from socket_server.api.authorization import Authorization
from socket_server.api.errors import unavailable
from socket_server.config import Settings
from socket_server.errors import RequestError
from socket_server.inbox.inbox import InboxUnavailable
from socket_server.notifications import notification
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.runtime.time_slice import YieldingLock
from socket_server.transport.engineio.origins import Origins

Headers = list[tuple[str, str]]
WsgiResponse = tuple[str, Headers, bytes]  # status line, headers, body

# What any other request of a stranger may carry: a few fields of JSON.
SMALL_BODY_BYTES = 65_536

# To take apart more than this, the ids of some 1,500 users, takes about a millisecond.
_LARGE_BODY_BYTES = 16_384

_UNLOCKED = nullcontext()

_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_JSON = ("Content-Type", "application/json")
_NOT_JSON = "send the body as Content-Type: application/json"


class Endpoint:
    """The broadcast endpoint: authorise, parse, send, answer."""

    def __init__(
        self, settings: Settings, authorization: Authorization, broadcaster: Broadcaster, origins: Origins
    ) -> None:
        self._authorization = authorization
        self._max_body_bytes = settings.max_body_bytes
        self._max_users = settings.max_users_per_broadcast
        self._broadcaster = broadcaster
        self._origins = origins
        self._large = YieldingLock()
        self._handlers: dict[str, Callable[[bytes, Mapping[str, Any]], object]] = {
            "/broadcast": self._one,
            "/broadcast/batch": self._batch,
        }

    def routes(self) -> dict[tuple[str, str], Callable[..., list[bytes]]]:
        """Return the endpoint's (method, path) pairs for the worker to call directly."""
        return {("POST", path): self._serve_directly for path in self._handlers}

    def judge_head(self, environ: dict[str, Any]) -> tuple[int, WsgiResponse | None]:
        """Judge a request before its body is read: how large that may be, or the response that refuses it.

        A stranger's large body is so never taken in.
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
        """Answer one request, but for the CORS headers."""
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
        with self._room_for(body):
            parsed = notification.parse(body, self._max_users, key)
        return self._broadcaster.send(parsed).to_json()

    def _batch(self, body: bytes, _: Mapping[str, Any]) -> object:
        with self._room_for(body):
            parsed = notification.parse_batch(body, self._max_users)
        sent = iter(self._broadcaster.send_all([each for each in parsed if isinstance(each, Broadcast)]))
        results = [each if isinstance(each, RequestError) else next(sent) for each in parsed]
        return {
            "results": [
                {"error": each.error, "message": each.message, "status": each.status}
                if isinstance(each, RequestError)
                else each.to_json()
                for each in results
            ]
        }

    def _room_for(self, body: bytes) -> AbstractContextManager[None]:
        """Publishers answered together post together again: what is large goes one by one, or everybody waits for all."""
        return self._large if len(body) > _LARGE_BODY_BYTES else _UNLOCKED

    def _serve_directly(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        status, headers, body = self.respond(environ)
        start_response(status, headers + self._origins.headers(environ))
        return [body]

    def _error(self, error: RequestError, cors_for: Mapping[str, Any] | None = None) -> WsgiResponse:
        headers = [_JSON]
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", "Bearer"))
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", "1"))
        if cors_for is not None:
            headers += self._origins.headers(cors_for)
        return _STATUS[error.status], headers, orjson.dumps({"error": error.error, "message": error.message})


def blueprint(endpoint: Endpoint) -> Blueprint:
    """Register the endpoint with Flask."""
    bp = Blueprint("broadcast", __name__)

    @bp.post("/broadcast")
    @bp.post("/broadcast/batch")
    def broadcast() -> Response:
        """Store and deliver one notification, or many.

        400: bad body, 401: no key, 409, 422: Idempotency-Key in use, 413: too large, 415: not JSON, 503: inbox down.
        """
        status, headers, body = endpoint.respond(request.environ)
        return Response(body, status, headers)

    return bp


def _json_body(environ: Mapping[str, Any], max_bytes: int) -> bytes:
    """Return the body of a JSON request. Raises RequestError 413 or 415."""
    content_type: str = environ.get("CONTENT_TYPE", "")
    if content_type != "application/json" and content_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "Unsupported Media Type", _NOT_JSON)
    body: bytes | None = environ.get("socket_server.body")  # our worker has read it already
    if body is None:
        declared = environ.get("CONTENT_LENGTH") or "0"
        size = int(declared) if declared.isdecimal() else 0
        body = environ["wsgi.input"].read(min(size, max_bytes + 1))
    if len(body) > max_bytes:
        raise RequestError(413, "Request Entity Too Large", f"the body is over {max_bytes} bytes: split the broadcast")
    return body
