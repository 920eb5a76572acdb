"""Every error of the REST API as JSON `{"error", "message"}`. A 500 reveals nothing internal."""

from http import HTTPStatus

import orjson
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from socket_server import log
from socket_server.errors import RequestError, Unavailable

_log = log.logger("Server")

_REMEDIES = {
    404: (
        "there is no such path; the API is /health, /stats, /broadcast, /broadcast/batch, /users/<id>/notifications and "
        "/users/<id>/connections"
    ),
    405: "this path does not take this method; the Allow header lists what it takes",
    413: "the body is larger than MAX_BODY_BYTES: split the broadcast",
    415: "send the body as Content-Type: application/json",
    429: "too many requests: wait as long as the Retry-After header says",
    500: "the details are in the server's log",
}


def json_response(body: object, status: int = 200) -> Response:
    """Return a JSON response. Its text is UTF-8, not \\u-escaped."""
    return Response(orjson.dumps(body), status, mimetype="application/json")


def encode_error(error: RequestError) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers and the body of an error response."""
    headers = [("Content-Type", "application/json")]
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    if error.retry_after_s is not None:
        headers.append(("Retry-After", str(error.retry_after_s)))
    return headers, orjson.dumps({"error": error.error, "message": error.message})


def unavailable(error: Unavailable) -> RequestError:
    """Return the 503 for a part that did not confirm an operation.

    The operation may have taken effect all the same; a repeat with the same Idempotency-Key is safe.
    """
    return RequestError(503, "Service Unavailable", str(error), retry_after_s=1)


def register(app: Flask) -> None:
    """Register the handlers of every error of the app."""

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        headers, body = encode_error(error)
        return Response(body, error.status, headers)

    @app.errorhandler(Unavailable)
    def down(error: Unavailable) -> Response:
        return refused(unavailable(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        response = refused(RequestError(status, error.name, _REMEDIES.get(status) or error.description or error.name))
        for name, value in error.get_headers():
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value  # Allow of a 405, Retry-After of a 429, Location of a redirect
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _log.exception("unexpected error in a request", exc_info=error)
        return refused(RequestError(500, "Internal Server Error", _REMEDIES[500]))
