"""POST /broadcast."""

from flask import Blueprint, Response, request

from socket_server.api.errors import json_response
from socket_server.auth.api_keys import ApiKeys, is_loopback_call
from socket_server.config import Settings
from socket_server.errors import RequestError
from socket_server.notifications import notification
from socket_server.notifications.broadcaster import Broadcaster

_FORWARDING_HEADERS = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")


def blueprint(settings: Settings, broadcaster: Broadcaster) -> Blueprint:
    bp = Blueprint("broadcast", __name__)
    api_keys = ApiKeys(settings.api_keys)

    @bp.post("/broadcast")
    def broadcast() -> Response:
        """Deliver one notification. 400: bad body, 401: no key, 413: too large, 415: not JSON."""
        authorize(api_keys, settings)
        return json_response(broadcaster.send(notification.parse(json_body(), settings.max_users_per_broadcast)).to_json())

    return bp


def authorize(api_keys: ApiKeys, settings: Settings) -> None:
    """Let the request's caller pass. Raises RequestError 401."""
    if settings.api_open:
        return
    if api_keys:
        if api_keys.accept(request.headers.get("Authorization", "")):
            return
        raise RequestError(401, "Unauthorized", "send Authorization: Bearer <one of API_KEYS>")
    if not is_local_request():
        raise RequestError(
            401, "Unauthorized", "development without API_KEYS takes calls from this machine only; set API_KEYS"
        )


def is_local_request() -> bool:
    """Say whether the request comes from this very machine, through no proxy."""
    environ = request.environ
    forwarded = any(name in environ for name in _FORWARDING_HEADERS)
    return is_loopback_call(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_HOST", ""), forwarded)


def json_body() -> bytes:
    """Return the body of a JSON request. Raises RequestError 415, or RequestEntityTooLarge."""
    if request.mimetype != "application/json":
        raise RequestError(415, "Unsupported Media Type", "send the body as Content-Type: application/json")
    return request.get_data(cache=False)
