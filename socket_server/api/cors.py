"""CORS: web pages of the origins in CLIENT_URL may call the API."""

from flask import Flask, Response, request

from socket_server.transport.engineio.origins import Origins


def register(app: Flask, origins: Origins) -> None:
    """Answer preflight requests, and add the CORS headers to responses for allowed origins."""

    @app.before_request
    def preflight() -> Response | None:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return Response(status=204 if origins.allow(request.environ) else 403)
        return None

    @app.after_request
    def allow(response: Response) -> Response:
        for name, value in origins.headers(request.environ):
            response.headers.add(name, value)
        return response
