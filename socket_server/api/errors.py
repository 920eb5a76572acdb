"""Every error of the REST API as JSON `{"error", "message"}`; a 500 says nothing of what is inside."""

from http import HTTPStatus

import orjson
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from socket_server import log
from socket_server.errors import RequestError, Unavailable

_log = log.logger("Server")

_MENDS = {
    404: (
        "nothing is here; the API is /health, /stats, /broadcast, /broadcast/batch, /users/<id>/notifications and "
        "/users/<id>/connections"
    ),
    405: "this path does not take this method; the Allow header lists what it takes",
    413: "the body is larger than MAX_BODY_BYTES: split the broadcast",
    415: "send the body as Content-Type: application/json",
    429: "too many requests: wait as long as the Retry-After header says",
    500: "the details are in the server's log",
}


def json_response(body: object, status: int = 200) -> Response:
    """Return a response with this JSON, UTF-8 and not escaped."""
    return Response(orjson.dumps(body), status, mimetype="application/json")


def error_response(status: int, error: str, message: str) -> Response:
    response = json_response({"error": error, "message": message}, status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def unavailable(error: Unavailable) -> RequestError:
    """Return what a request is answered that a part could not confirm. Where the inbox's answer was lost it may be stored
    all the same: a repeat with the same Idempotency-Key does no harm."""
    return RequestError(503, "Service Unavailable", str(error))


def register(app: Flask) -> None:
    """Answer every error of the app in our form."""

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return error_response(error.status, error.error, error.message)

    @app.errorhandler(Unavailable)
    def down(error: Unavailable) -> Response:
        return refused(unavailable(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        response = error_response(status, error.name, _MENDS.get(status) or error.description or error.name)
        for name, value in error.get_headers():
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value  # Allow of a 405, Retry-After of a 429, Location of a redirect
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _log.exception("unexpected error in a request", exc_info=error)
        return error_response(500, "Internal Server Error", _MENDS[500])
